#!/bin/bash
{# PBS, both dialects: OpenPBS (and PBS Professional), and Torque. Only checked against their documentation, not run.
   What comes out: htxas queue preview --cluster NAME. To change it: copy it, name the copy in htxas.yaml (template:
   my-pbs.sh). Values are quoted for the shell by themselves; the filter `directive` is for #PBS lines, which must come
   before the first command. #}
#PBS -S /bin/bash
#PBS -N {{ name|directive }}
#PBS -q {{ partition|directive }}
{% if account %}
#PBS -A {{ account|directive }}
{% endif %}
{% if dialect == "torque" %}
#PBS -l nodes=1:ppn={{ cores }},mem={{ memory_MB }}mb
{% else %}
#PBS -l select=1:ncpus={{ cores }}:mem={{ memory_MB }}mb
{% endif %}
#PBS -l walltime={{ walltime_s|clock }}
{% if requeue %}
#PBS -r y
{% else %}
#PBS -r n
{% endif %}
#PBS -m n
#PBS -j oe
{# A folder: one file for each array task. #}
#PBS -o {{ folder|directive }}/
{% for option in options %}
#PBS {{ option|directive }}
{% endfor %}

{% include "pilot.sh" %}
