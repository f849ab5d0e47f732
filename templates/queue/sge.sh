#!/bin/bash
{# Grid Engine: one pilot, or a job array of them. What comes out: htxas queue preview --cluster NAME
   To change it: copy it, name the copy in htxas.yaml (template: my-sge.sh). Values are quoted for the shell by
   themselves; the filter `directive` is for lines of #$, which must come before the first command. #}
#$ -S /bin/bash
#$ -N {{ name|directive }}
#$ -q {{ partition|directive }}
{% if account %}
#$ -P {{ account|directive }}
{% endif %}
{% if cores > 1 %}
#$ -pe {{ parallel_environment|directive }} {{ cores }}
{% endif %}
{# The soft limit sends SIGUSR1: the warning before the end. #}
#$ -l h_rt={{ walltime_s|clock }},s_rt={{ (walltime_s - signal_s)|clock }}
{% if memory_resource %}
{# Grid Engine counts it per slot. #}
#$ -l {{ memory_resource|directive }}={{ (memory_MB / cores)|round(0, "ceil")|int }}M
{% endif %}
{# SIGUSR2 before qdel's SIGKILL, which would otherwise come out of the blue. #}
#$ -notify
{% if requeue %}
#$ -r y
{% else %}
#$ -r n
{% endif %}
#$ -j y
{% if array > 1 %}
#$ -o {{ folder|directive }}/sge-$TASK_ID.out
{% else %}
#$ -o {{ folder|directive }}/sge.out
{% endif %}
{% for option in options %}
#$ {{ option|directive }}
{% endfor %}

{% include "pilot.sh" %}
