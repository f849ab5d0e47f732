{# The part all queue scripts share: the user's setup, the environment of htxas, and the pilot in place of this shell. #}
{# A warning that comes before the pilot can listen must not end it; it asks the scheduler for its end time anyway. #}
trap '' USR1
{# The walltime counts from here, where the scheduler does not tell when it ends: setup may take a while. #}
export HTXAS_JOB_STARTED="$(date +%s)"
{% for line in setup %}
{{ line }}
{% endfor %}
{% if array > 1 %}
pilot={{ submission }}-${{ task_variable }}
{% else %}
pilot={{ submission }}
{% endif %}
export HTXAS_HOME={{ home }}
{% if uri_env %}
export HTXAS_DB_URI="${ {{- uri_env -}} :?should hold the address of the database, says htxas.yaml}"
unset HTXAS_DB_URI_FILE
{% if uri_env != "HTXAS_DB_URI" %}
{# htxas keeps its own variable from the engines; it cannot know of this one. #}
unset {{ uri_env }}
{% endif %}
{% else %}
unset HTXAS_DB_URI HTXAS_DB_URI_FILE
{% endif %}
{% if uri_file %}
export HTXAS_DB_URI_FILE={{ uri_file }}
{% endif %}
{% if scratch %}
export TMPDIR={{ scratch }}
mkdir -p "$TMPDIR" || exit 1
{% endif %}
mkdir -p "$HTXAS_HOME/pilots/$pilot" && cd "$HTXAS_HOME/pilots/$pilot" || exit 1
set -- --pilot "$pilot" --cluster {{ cluster }} --walltime-s {{ walltime_s }} --margin-s {{ margin_s }}
set -- "$@" --workers {{ workers }} --cores-per-worker {{ cores_per_worker }}
set -- "$@" --memory-per-worker-MB {{ memory_per_worker_MB }} --linger-s {{ idle_s }}
{% if campaign %}
set -- "$@" --campaign {{ campaign }}
{% endif %}
{% if bundle %}
set -- "$@" --bundle {{ bundle }}
{% endif %}
{# exec: the scheduler's signals reach the pilot, not a shell that waits for it. #}
{% if nodes > 1 %}
trap - USR1
exec srun --export=ALL --ntasks-per-node=1 --cpus-per-task={{ cores }} --kill-on-bad-exit=0 {{ python }} -m htxas.launch.pilots.pilot "$@"
{% else %}
exec {{ python }} -m htxas.launch.pilots.pilot "$@"
{% endif %}
