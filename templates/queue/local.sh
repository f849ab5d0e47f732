#!/bin/bash
{# No scheduler: htxas starts this as a process of its own on the host and ends it at its walltime. #}
{% include "pilot.sh" %}
