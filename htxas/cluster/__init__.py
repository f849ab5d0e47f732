"""Cluster profiles, scheduler adapters, queue scripts and the hosts they run on. Knows no database and no FireWorks.

::

    htxas.yaml -> schema -> load -> profile            what the user says, checked
    templates/queue/*.sh -> script                     the job script of a pilot
    slurm, pbs, sge, lsf, local                        commands as argument lists, meaning of answers; no I/O
    host                                               where commands run: here, or through OpenSSH
    queue                                              all of them together: submit, snapshot, accounting, cancel
    jobs                                               the vocabulary of the answers

Why own adapters, when FireWorks has a CommonAdapter and there is qtoolkit? Both were read in their source.

* FireWorks 2.1.4, ``qlaunch``: sleeps 5 s after each submission, cuts squeue off at 5 s and retries after 30, 60 and
  120 s, counts a pending job array as one job, and cancelling a queue id does not cancel the job. It keeps no states of
  jobs, so a failing squeue and an empty queue look the same.
* qtoolkit 0.1.7: commands are shell strings with unquoted values; answers are asked for without a header, so nothing at
  all reads as "no jobs"; unknown state words raise, so one odd job hides all others; no job arrays, no LSF, and sacct
  is not implemented.

What qtoolkit does well is kept: building commands and reading answers are pure functions, apart from running them.

The rules here: an answer that is empty, cut, garbage or late is :class:`~htxas.cluster.jobs.Unknown`, from which
nothing may be concluded; a job that a good answer does not mention is *absent*, which is not yet *gone*; a submission
without a clear answer is :class:`~htxas.cluster.jobs.Unclear` and is looked for by name before anybody submits again.
"""
