#!/bin/bash
{# LSF: one pilot, or a job array of them. Only checked against its documentation, not run.
   What comes out: htxas queue preview --cluster NAME. To change it: copy it, name the copy in htxas.yaml (template:
   my-lsf.sh). Values are quoted for the shell by themselves; the filter `directive` is for #BSUB lines, which must
   come before the first command. #}
{# The name is given to bsub, as an array's name says how many tasks it has. #}
#BSUB -q {{ partition|directive }}
{% if account %}
#BSUB -P {{ account|directive }}
{% endif %}
{# Minutes. #}
#BSUB -W {{ walltime_s // 60 }}
{% if signal_s >= 60 %}
#BSUB -wa USR1 -wt {{ signal_s // 60 }}
{% endif %}
#BSUB -n {{ cores }}
{# Memory of the whole pilot: LSF reserves it per host, unless the site has RESOURCE_RESERVE_PER_TASK=Y (bparams -a | grep
   RESOURCE_RESERVE). There it is per slot: the job would ask for cores times too much and wait for ever. Then write, in a
   copy, mem=...MB/host (LSF 10.1 and newer), or divide the memory by the cores; templates/README.md has both lines. #}
#BSUB -R "span[hosts=1] rusage[mem={{ memory_MB }}MB]"
{% if requeue %}
#BSUB -r
{% else %}
#BSUB -rn
{% endif %}
{# Nothing of the submitting shell comes along, least of all the database's address. #}
#BSUB -env none
{% if array > 1 %}
#BSUB -oo {{ folder|directive }}/lsf-%I.out
{% else %}
#BSUB -oo {{ folder|directive }}/lsf.out
{% endif %}
{% for option in options %}
#BSUB {{ option|directive }}
{% endfor %}

{% include "pilot.sh" %}
