#!/bin/bash
{# Slurm: one pilot, or a job array of them. What comes out: htxas queue preview --cluster NAME
   To change it: copy it, name the copy in htxas.yaml (template: my-slurm.sh). Values are quoted for the shell by
   themselves; the filter `directive` is for #SBATCH lines, which must come before the first command. #}
#SBATCH --job-name={{ name|directive }}
#SBATCH --partition={{ partition|directive }}
{% if account %}
#SBATCH --account={{ account|directive }}
{% endif %}
#SBATCH --time={{ walltime_s|clock }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={{ cores }}
#SBATCH --mem={{ memory_MB }}M
{% if array > 1 %}
#SBATCH --array=1-{{ array }}
#SBATCH --output={{ folder|directive }}/slurm-%a.out
{% else %}
#SBATCH --output={{ folder|directive }}/slurm.out
{% endif %}
#SBATCH --open-mode=append
{% if requeue %}
#SBATCH --requeue
{% else %}
#SBATCH --no-requeue
{% endif %}
{# Nothing of the submitting shell comes along, least of all the database's address. #}
#SBATCH --export=NONE
{# A warning before the end, to this script only: the exec at its end makes that the pilot, or srun, which passes it on. #}
#SBATCH --signal=B:USR1@{{ signal_s }}
{% for option in options %}
#SBATCH {{ option|directive }}
{% endfor %}

{# NONE is handed on to the job, where srun would start engines (launcher:) with an empty environment for it. #}
unset SLURM_EXPORT_ENV
{% include "pilot.sh" %}
