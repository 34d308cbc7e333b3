# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_voxeltron_backup_global_optspecs
    string join \n c/config= json q/quiet v/verbose progress= color= h/help V/version
end

function __fish_voxeltron_backup_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_voxeltron_backup_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_voxeltron_backup_using_subcommand
    set -l cmd (__fish_voxeltron_backup_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "run-job" -d 'Run jobs now, whatever their schedule says'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "schedule-check" -d 'Run every job that is due; a timer calls this once a minute'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "restore" -d 'Bring a database back, in its place or beside it'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "prune" -d 'Remove what retention does not keep'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "list" -d 'List the backups at the targets'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "pin" -d 'Keep a backup for ever, whatever retention says'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "unpin" -d 'Let retention decide about a pinned backup again'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "verify" -d 'Read backups back, and prove that they can be restored'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "check" -d 'Look whether everything that a backup needs is there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "status" -d 'Show how each job is doing; exit status 3 when one is overdue or failing'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "cloud" -d 'Link this instance to Voxeltron Cloud, where a job then sends its backups by target = "cloud"'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "keygen" -d 'Print a fresh encryption key'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "demo" -d 'Show the whole work on a small SQLite database: back up, list, verify, damage, restore, compare'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "completions" -d 'Print the completions for a shell'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "man" -d 'Print the manual page, or write all of them into a folder'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "db" -d 'Voxeltron\'s own spelling of restore'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -l target -d 'Send it only to this target of the job; may be given several times' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -l all -d 'Every job of the configuration'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand run-job" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l max-parallel -d 'How many jobs may run at once' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l at -d 'Decide as of this instant' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l dry-run -d 'Print the decision and its reason for each job; run and contact nothing'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l run-new -d 'Run new jobs at once, without waiting for their first slot'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand schedule-check" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l timestamp -d 'The one whose slot or creation is then, at the precision it is given in: 2026-02-25, 2026-02-25T03:00, …' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l before -d 'The newest that was created then or before' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l undo -d 'Put the database back as it was before the last restore in its place; with a time, before the one that began then' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l job -d 'Only backups of this job' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l target -d 'Only backups at this target' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l instance -d 'Backups of another instance' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l into -d 'Restore beside the database under this name, which must be free (SQLite: a path)' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l url -d 'Restore at the server that this URL names, not at the configured one; without a password in it' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l password-file -d 'The file that holds the password for --url; without it, VOXELTRON_RESTORE_PASSWORD is taken from the environment' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l jobs -d 'Load so many parts of it at once (PostgreSQL only); the backup is first kept in a file in data_dir' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l output -d 'Write the decoded dump to this file (- for stdout) and touch no database' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l latest -d 'The newest'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l dry-run -d 'Say what would be done, and do nothing'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l yes -d 'Don\'t ask'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l allow-unauthenticated -d 'Take a backup although it does not authenticate'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand restore" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -l target -d 'Only at this target; may be given several times' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -l dry-run -d 'Say what would be removed, and remove nothing'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -l force -d 'Remove more than half of a job\'s backups, if retention says so'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand prune" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -l target -d 'Only at this target' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -l instance -d 'Backups of another instance' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand list" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l timestamp -d 'The one whose slot or creation is then, at the precision it is given in: 2026-02-25, 2026-02-25T03:00, …' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l job -d 'Only backups of this job' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l target -d 'Only the copy at this target' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l latest -d 'The newest'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand pin" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l timestamp -d 'The one whose slot or creation is then, at the precision it is given in: 2026-02-25, 2026-02-25T03:00, …' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l job -d 'Only backups of this job' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l target -d 'Only the copy at this target' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l latest -d 'The newest'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand unpin" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l timestamp -d 'The one whose slot or creation is then, at the precision it is given in: 2026-02-25, 2026-02-25T03:00, …' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l job -d 'Only backups of this job' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l target -d 'Only at this target' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l latest -d 'The newest'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l all -d 'Every backup'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l restore -d 'Also load it into a scratch database, and say what is in it'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand verify" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -l offline -d 'Contact no database and no target'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand check" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand status" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -f -a "link" -d 'Show a code, wait until somebody approves it at the endpoint, and keep the link'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -f -a "unlink" -d 'End the link, there and here; the backups there stay'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -f -a "status" -d 'Show where it is linked to, how full the account is, and whether it answers'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and not __fish_seen_subcommand_from link unlink status help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -l endpoint -d 'Who keeps the backups; default: `endpoint` of the target in the configuration' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -l ca-file -d 'Trust the certificates of this PEM file, too' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -l force -d 'Replace the link that there is'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from link" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -l force -d 'Remove the link here even if it can\'t be ended there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from unlink" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from status" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from help" -f -a "link" -d 'Show a code, wait until somebody approves it at the endpoint, and keep the link'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from help" -f -a "unlink" -d 'End the link, there and here; the backups there stay'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from help" -f -a "status" -d 'Show where it is linked to, how full the account is, and whether it answers'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand cloud; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand keygen" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand demo" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand completions" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand man" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -f -a "restore" -d 'Bring a database back, in its place or beside it'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and not __fish_seen_subcommand_from restore help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l timestamp -d 'The one whose slot or creation is then, at the precision it is given in: 2026-02-25, 2026-02-25T03:00, …' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l before -d 'The newest that was created then or before' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l undo -d 'Put the database back as it was before the last restore in its place; with a time, before the one that began then' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l job -d 'Only backups of this job' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l target -d 'Only backups at this target' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l instance -d 'Backups of another instance' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l into -d 'Restore beside the database under this name, which must be free (SQLite: a path)' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l url -d 'Restore at the server that this URL names, not at the configured one; without a password in it' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l password-file -d 'The file that holds the password for --url; without it, VOXELTRON_RESTORE_PASSWORD is taken from the environment' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l jobs -d 'Load so many parts of it at once (PostgreSQL only); the backup is first kept in a file in data_dir' -r
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l output -d 'Write the decoded dump to this file (- for stdout) and touch no database' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -s c -l config -d 'The configuration file' -r -F
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l progress -d 'When to draw progress on stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l color -d 'When to colour stderr' -r -f -a "auto\t'When stderr is a terminal'
always\t'Always'
never\t'Never'"
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l latest -d 'The newest'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l dry-run -d 'Say what would be done, and do nothing'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l yes -d 'Don\'t ask'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l allow-unauthenticated -d 'Take a backup although it does not authenticate'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -l json -d 'Print one JSON document on stdout, and nothing else there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -s q -l quiet -d 'Say only what is wrong'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -s v -l verbose -d 'Say every command that is run, secrets left out'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from restore" -s V -l version -d 'Print version'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "restore" -d 'Bring a database back, in its place or beside it'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "run-job" -d 'Run jobs now, whatever their schedule says'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "schedule-check" -d 'Run every job that is due; a timer calls this once a minute'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "restore" -d 'Bring a database back, in its place or beside it'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "prune" -d 'Remove what retention does not keep'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "list" -d 'List the backups at the targets'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "pin" -d 'Keep a backup for ever, whatever retention says'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "unpin" -d 'Let retention decide about a pinned backup again'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "verify" -d 'Read backups back, and prove that they can be restored'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "check" -d 'Look whether everything that a backup needs is there'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "status" -d 'Show how each job is doing; exit status 3 when one is overdue or failing'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "cloud" -d 'Link this instance to Voxeltron Cloud, where a job then sends its backups by target = "cloud"'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "keygen" -d 'Print a fresh encryption key'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "demo" -d 'Show the whole work on a small SQLite database: back up, list, verify, damage, restore, compare'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "completions" -d 'Print the completions for a shell'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "man" -d 'Print the manual page, or write all of them into a folder'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "db" -d 'Voxeltron\'s own spelling of restore'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and not __fish_seen_subcommand_from run-job schedule-check restore prune list pin unpin verify check status cloud keygen demo completions man db help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and __fish_seen_subcommand_from cloud" -f -a "link" -d 'Show a code, wait until somebody approves it at the endpoint, and keep the link'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and __fish_seen_subcommand_from cloud" -f -a "unlink" -d 'End the link, there and here; the backups there stay'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and __fish_seen_subcommand_from cloud" -f -a "status" -d 'Show where it is linked to, how full the account is, and whether it answers'
complete -c voxeltron-backup -n "__fish_voxeltron_backup_using_subcommand help; and __fish_seen_subcommand_from db" -f -a "restore" -d 'Bring a database back, in its place or beside it'
