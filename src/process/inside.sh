# Runs a tool where the words of `exec` lead: `sh -c THIS sh MODE TOOL ARGUMENT…`. Standard input begins with a token, a
# line for each variable, and `.`; so no secret stands in an argument. Then comes the tool's own input (MODE `input`), or
# nothing until our end (MODE `dump`), which stops the tool. Any POSIX shell runs it: dash, bash, busybox.
IFS= read -r __vx_token || { echo 'voxeltron-backup: nothing comes on standard input' >&2; exit 121; }
__vx_first=
while :; do
    IFS= read -r __vx_line || exit 122
    case $__vx_line in
        .) break ;;
        =*) __vx_first=$__vx_line ;;
        *) export "$__vx_line" ;;
    esac
done
__vx_mode=$1
shift
command -v "$1" >/dev/null 2>&1 || { echo "$__vx_token missing" >&2; exit 127; }
if [ "$__vx_mode" = input ]; then
    echo "$__vx_token $$" >&2
    exec "$@"
fi
exec 3<&0
if [ -n "$__vx_first" ]; then
    printf '%s\n' "${__vx_first#=}" | "$@" 3<&- &
else
    "$@" </dev/null 3<&- &
fi
__vx_tool=$!
echo "$__vx_token $__vx_tool" >&2
# Whoever started us holds our input open; its end is theirs.
(
    while IFS= read -r __vx_line; do :; done
    trap '' TERM
    kill -TERM "$__vx_tool"
    sleep 1
    kill -KILL "$__vx_tool"
) <&3 3<&- >/dev/null 2>&1 &
__vx_watch=$!
exec 3<&- </dev/null
# Only now, so that no child has it: a signal must not end this shell before its children. They would become children of
# the container's first process, and PostgreSQL's takes one that dies of a signal for a crash of the server.
trap : TERM
while :; do
    wait "$__vx_tool"
    __vx_status=$?
    kill -0 "$__vx_tool" 2>/dev/null || break
done
kill -TERM "$__vx_watch" 2>/dev/null
wait
exit "$__vx_status"
