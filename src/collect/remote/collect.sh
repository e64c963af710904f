#!/bin/sh
# Diffy on a host: asks osquery and prints or uploads what it says. Leaves nothing behind.
#
# POSIX sh: dash, bash, busybox. The controller replaces the job below and leaves comments out; the same body is in the
# SSM document Diffy-Collect. Everything is inside of functions and runs in the last line, so that a script that was cut
# does nothing, and one that comes on stdin is read to its end first.

# --- job ---
NONCE='00000000000000000000000000000000'
QUERIES=''
OUTPUT='inline'
URL=''
QUERY_SECONDS='120'
HOST_SECONDS='900'
QUERY_BYTES='134217728'
INLINE_BYTES='23900'
BOOTSTRAP_URL=''
BOOTSTRAP_SHA256=''
BOOTSTRAP_KIND=''
# --- end of job ---

# Most bytes of all answers together, and of a program that is fetched.
PAYLOAD_BYTES=536870912
PROGRAM_BYTES=536870912
# What is kept of the errors of one query: their end.
ERROR_BYTES=4096
# Kilobytes that stay free on the disk whatever is asked.
SPARE_KB=16384
SYSTEM_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PLACES='/opt/osquery/bin /usr/local/osquery/bin /opt/orbit/bin /opt/orbit/bin/osqueryd/linux/stable /opt/orbit/bin/osqueryd/linux-arm64/stable'
CGROUPS=/sys/fs/cgroup
FLAGS='--json --logger_stderr=false --logger_min_status=3 --logger_min_stderr=2 --disable_extensions=true'

dir='' cgroup='' setsid='' decode='' watch='' group='' reader='' errors='' packer=''
leash='' program='' agent=none version='' notes='' noted=0 answers=0 raw=0 gz=0 sha='' upload=''
runs=0 code=0 late='' began=0 stamp=0 started=0 ended=0 out=0 err=0 room=0 looked=0

have() { command -v "$1" >/dev/null 2>&1; }

# One line, printable, short.
plain() { tr -c '[:print:]' ' ' | head -c "$1"; }

note() {
    noted=$((noted + 1))
    [ "$noted" -le 20 ] || return 0
    notes="$notes
note $(printf '%s' "$*" | plain 200)"
}

# Kilobytes that are free where $1 is; 0 when nobody knows.
free_kb() {
    df -Pk "$1" 2>/dev/null | {
        read -r _ && read -r _ _ _ avail _ || avail=0
        case $avail in '' | *[!0-9]*) avail=0 ;; esac
        echo "$avail"
    }
}

# --- tools that hosts have under different names; each reads stdin and writes stdout ---

encode64() {
    if have base64; then
        base64
    elif have openssl; then
        openssl base64
    else
        python3 -I -c 'import base64,sys; base64.encode(sys.stdin.buffer, sys.stdout.buffer)'
    fi
}

# Prints 64 hex digits, or nothing.
digest() {
    if have sha256sum; then
        sha256sum
    elif have shasum; then
        shasum -a 256
    elif have openssl; then
        openssl dgst -sha256 -r
    else
        python3 -I -c 'import hashlib,sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
    fi 2>/dev/null | head -c 64
}

pack() {
    if have gzip; then
        exec gzip -c
    else
        exec python3 -I -c 'import gzip,shutil,sys
with gzip.GzipFile(fileobj=sys.stdout.buffer, mode="wb") as out: shutil.copyfileobj(sys.stdin.buffer, out)'
    fi
}

# Whether all that the answers need is here; says what is not.
has_tools() {
    for tool in mktemp mkfifo mkdir head tail cat rm mv date sleep wc df tr env; do
        have "$tool" || { note "no $tool"; return 1; }
    done
    have gzip || have python3 || { note 'no gzip and no python3'; return 1; }
    # A word list and no function: one process less for each query.
    if have base64; then
        decode='base64 -d'
    elif have openssl; then
        decode='openssl base64 -d -A'
    elif have python3; then
        decode='python3 -I -m base64 -d'
    else
        note 'no base64, openssl or python3'
        return 1
    fi
    have sha256sum || have shasum || have openssl || have python3 ||
        { note 'no sha256sum, shasum, openssl or python3'; return 1; }
}

# --- a place of our own ---

# Makes $dir: private, with room, and on a disk that runs programs when one is to be fetched.
make_dir() {
    for base in /var/tmp /tmp /var/lib; do
        [ -w "$base" ] || continue
        [ "$(free_kb "$base")" -ge "$((SPARE_KB * 2))" ] || continue
        dir=$(mktemp -d "$base/diffy-$NONCE.XXXXXX" 2>/dev/null) || continue
        case $dir in "$base/diffy-$NONCE".*) ;; *) dir=''; continue ;; esac
        if [ -n "$BOOTSTRAP_SHA256" ]; then
            printf '#!/bin/sh\nexit 0\n' >"$dir/try" && chmod 700 "$dir/try"
            "$dir/try" 2>/dev/null || { rm -rf "$dir"; dir=''; continue; }
        fi
        mkdir "$dir/home" && mkfifo "$dir/payload" "$dir/alive" && : >"$dir/on" && echo - >"$dir/running" && return 0
        rm -rf "$dir"
        dir=''
    done
    note 'no temporary directory with 32 MiB of room'
    return 1
}

# One for the whole run. Kills a query that is out of time. And when this script is killed in a way that it cannot see (SSM
# kills with KILL), ends and removes what is there: the end of the script closes the only reader of `alive`, and writing
# there fails. A byte a second: the pipe has room for 18 hours.
#
# Time is counted in naps, as the clock may be set meanwhile. Nobody waits for this one, and it is ended with KILL only:
# between fork and exec a child still has the handlers of its parent, and a signal that they catch there is lost.
start_watch() {
    # The nearest thing to opening a pipe without waiting for the other side.
    exec 9<>"$dir/alive"
    # shellcheck disable=SC2016,SC2086 # the inner shell expands it; $setsid is one word or none
    $setsid sh -c '
        trap "" PIPE
        last=- naps=0
        while echo; do
            sleep 1
            [ -d "$1" ] || exit 0
            read -r run group seconds <"$1/running" || continue
            [ "$run" = "$last" ] || naps=0
            last=$run naps=$((naps + 1))
            [ "$run" != - ] && [ "$naps" -gt "$seconds" ] || continue
            true >"$1/late.$run"
            kill -KILL "$group" "-$group"
        done
        rm -f "$1/on"
        read -r run group seconds <"$1/running" && [ "$run" != - ] && kill -KILL "$group" "-$group"
        [ -d "$2" ] && echo 1 >"$2/cgroup.kill"
        rm -rf "$1"
        sleep 1
        rm -rf "$1"
        [ -d "$2" ] && rmdir "$2"
    ' sh "$dir" "$CGROUPS/diffy-$NONCE" </dev/null >"$dir/alive" 2>/dev/null 8<&- 9>&- &
    watch=$!
}

# Whatever can be had of: lowest priority, idle disk, a cgroup for the queries with one processor and 1 GiB.
step_back() {
    renice -n 19 -p $$ >/dev/null 2>&1 || note 'priority not lowered'
    ionice -c 3 -p $$ >/dev/null 2>&1
    # shellcheck disable=SC3045 # shells without it say so, to nobody
    ulimit -c 0 2>/dev/null
    [ -e "$CGROUPS/cgroup.controllers" ] || return 0
    mkdir "$CGROUPS/diffy-$NONCE" 2>/dev/null || return 0
    cgroup=$CGROUPS/diffy-$NONCE
    limit cpu.weight 10
    limit cpu.max '100000 100000'
    limit memory.max 1073741824
    limit pids.max 512
}

limit() {
    [ ! -w "$cgroup/$1" ] || echo "$2" 2>/dev/null >"$cgroup/$1"
}

# Ends what runs, and removes what is there.
# shellcheck disable=SC2317 # a trap runs it
cleanup() {
    trap '' HUP INT TERM
    [ -n "$dir" ] || return 0
    # As the watch does it: what has not said its number yet will not begin.
    rm -f "$dir/on"
    read -r run group _ <"$dir/running" && [ "$run" != - ] && kill -KILL "$group" "-$group" 2>/dev/null
    if [ -n "$cgroup" ]; then echo 1 2>/dev/null >"$cgroup/cgroup.kill"; fi
    for child in $leash $reader $errors $packer; do kill -KILL "$child" 2>/dev/null; done
    for child in $group $reader $errors $packer; do wait "$child" 2>/dev/null; done
    rm -rf "$dir" || rm -rf "$dir"
    if [ -n "$cgroup" ]; then
        for _ in 1 2 3 4 5; do rmdir "$cgroup" 2>/dev/null && break; sleep 1; done
    fi
    if [ -n "$watch" ]; then kill -KILL "$watch" "-$watch" 2>/dev/null; fi
}

# --- running things ---

# Runs `$3…` for at most $1 seconds: stdout to $dir/out, of which $2 bytes are kept and one more when there are more, the
# end of stderr to $dir/err; stdin is $input. Sets code, late (1 when it was out of time), started, ended, and the sizes
# out and err.
run() {
    seconds=$1 most=$2
    shift 2
    runs=$((runs + 1))
    started=$stamp ended=$stamp code=127 late='' out=0 err=0
    o=$dir/o.$runs e=$dir/e.$runs
    # New ones: what an earlier program left behind may not be dead yet and still hold the old ones.
    mkfifo "$o" "$e" 2>/dev/null || { : >"$dir/out"; : >"$dir/err"; return; }
    # Both ends are opened here: who opens one end of a named pipe waits for the other, for ever when that one died.
    # shellcheck disable=SC2094
    exec 3<>"$o" 4>"$o" 5<"$o" 3<>"$e" 6>"$e" 7<"$e" 3>&-
    # Its own session: nothing that it starts escapes the kill, and the controller's kill leaves the watch alive. It says
    # its number and then looks for `on`; who ends everything removes `on` and then reads the number.
    # shellcheck disable=SC2016,SC2086
    $setsid sh -c '
        echo "$2 $$ $3" 1<>"$1/running" && [ -e "$1/on" ] || exit 127
        if [ -n "$4" ]; then echo 0 2>/dev/null >"$4/cgroup.procs"; fi
        echo 1000 2>/dev/null >/proc/self/oom_score_adj
        shift 4
        exec "$@"
    ' sh "$dir" "$runs" "$seconds" "$cgroup" "$@" <"$input" >&4 2>&6 4>&- 5<&- 6>&- 7<&- 8>&- 9>&- &
    group=$!
    head -c "$((most + 1))" <&5 >"$dir/out" 2>/dev/null 4>&- 5<&- 6>&- 7<&- 8>&- 9>&- &
    reader=$!
    tail -c "$ERROR_BYTES" <&7 >"$dir/err" 2>/dev/null 4>&- 5<&- 6>&- 7<&- 8>&- 9>&- &
    errors=$!
    exec 4>&- 5<&- 6>&- 7<&-
    # bash says on stderr whom it saw killed.
    await_run 2>/dev/null
}

await_run() {
    wait "$reader"
    reader=''
    # wc pads with blanks, arithmetic does not. exec: bash with traps takes a second process without it.
    out=$(($(exec wc -c <"$dir/out")))
    if [ "$out" -gt "$most" ]; then kill -KILL "$group" "-$group"; fi
    wait "$errors"
    errors=''
    wait "$group"
    code=$?
    # What it left running.
    kill -KILL "-$group"
    if [ -n "$cgroup" ]; then echo 1 >"$cgroup/cgroup.kill"; fi
    echo - 1<>"$dir/running"
    group=''
    if [ -s "$dir/err" ]; then err=$(($(exec wc -c <"$dir/err"))); fi
    if [ -e "$dir/late.$runs" ]; then late=1; fi
    stamp=$(exec date +%s)
    ended=$stamp
}

# The agent sees an environment of ours and a home that goes away.
run_agent() {
    limits="$1 $2"
    shift 2
    # shellcheck disable=SC2086 # two numbers
    run $limits env -i PATH="$PATH" HOME="$dir/home" LANG=C.UTF-8 "$@"
}

run_osquery() {
    shell_flag=''
    case $program in */osqueryd) shell_flag=-S ;; esac
    # A query that starts with a comment would be taken for a flag.
    # shellcheck disable=SC2086 # lists of flags
    run_agent "$1" "$2" "$program" $shell_flag $FLAGS " $3"
}

# The URL is on curl's or python's stdin, and never among arguments that others see. No proxy but that of the agent. No
# --retry: curl wants to cut its output back before it tries again, and cannot with a pipe or /dev/null.
CURL='exec curl -q -K - -sSg --proto =http,https --connect-timeout 20'
# Seconds before the second and the third try; after the last there is none.
PAUSES='1 4 0'

fetch() {
    if have curl; then
        printf 'url = "%s"\n' "$BOOTSTRAP_URL" >"$dir/url"
        set -- sh -c "$CURL -fL --proto-redir =http,https --max-redirs 5 --max-time 600"
    elif have python3; then
        printf '%s\n' "$BOOTSTRAP_URL" >"$dir/url"
        set -- python3 -I -c 'import shutil,sys,urllib.request
try: shutil.copyfileobj(urllib.request.urlopen(sys.stdin.readline().strip(), timeout=60), sys.stdout.buffer)
except Exception as e: sys.exit(str(getattr(e, "code", "") or getattr(e, "reason", e)))'
    else
        note 'bootstrap: no curl and no python3'
        return 1
    fi
    most=$((($(free_kb "$dir") - SPARE_KB) * 512))
    [ "$most" -lt "$PROGRAM_BYTES" ] || most=$PROGRAM_BYTES
    [ "$most" -gt 0 ] || { note 'bootstrap: no room on the disk'; return 1; }
    input=$dir/url
    since=$stamp
    for pause in $PAUSES; do
        run "$((600 - stamp + since))" "$most" "$@"
        [ "$code" -ne 0 ] || break
        # What is refused is refused again.
        case $(tail -n 1 "$dir/err") in 4[0-9][0-9] | *' 4'[0-9][0-9]) break ;; esac
        may_retry 600 || break
    done
    input=/dev/null
    rm -f "$dir/url"
    if [ "$out" -gt "$most" ]; then
        note "bootstrap: larger than $most bytes"
    elif [ -n "$late" ]; then
        note 'bootstrap: no answer within 600 s'
    elif [ "$code" -ne 0 ]; then
        note "bootstrap: cannot fetch: $(without_urls <"$dir/err")"
    else
        return 0
    fi
    return 1
}

# Waits before one more try, when one is left and half of $1 seconds since `since` are.
may_retry() {
    [ "$pause" -gt 0 ] && [ -z "$late" ] && [ "$((stamp - since))" -lt "$(($1 / 2))" ] && sleep "$pause"
}

without_urls() { sed 's,[a-z]*://[^ ]*,URL,g' | plain 160; }

# --- the agent ---

# Sets program to the first osqueryi, else osqueryd, which is the same program.
find_osquery() {
    for name in osqueryi osqueryd; do
        program=$(command -v "$name" 2>/dev/null)
        case $program in /*) [ -x "$program" ] && return 0 ;; esac
        for place in $PLACES; do
            program=$place/$name
            [ -f "$program" ] && [ -x "$program" ] && return 0
        done
    done
    program=''
    return 1
}

# Whether $program starts; sets version.
is_osquery() {
    run_osquery 30 65536 'SELECT version FROM osquery_info'
    version=$(sed -n 's/.*"version" *: *"\([0-9A-Za-z.+-]\{1,40\}\)".*/\1/p' <"$dir/out" | head -n 1)
    version=${version:-unknown}
    case $code in 126 | 127) note "cannot start $program: $(plain 120 <"$dir/err")"; return 1 ;; esac
    agent=osquery
}

is_native() {
    run_agent 30 65536 "$program" --version
    version=$(sed -n 's/^diffy \([0-9A-Za-z.+-]\{1,40\}\)$/\1/p' <"$dir/out" | head -n 1)
    [ -n "$version" ] || { note "bootstrap: no diffy: $(sed "s,$dir/,,g" <"$dir/err" | plain 140)"; return 1; }
    agent=native
}

# Fetches the program, and makes it executable only when it is the one that was promised.
bootstrap() {
    fetch || return 1
    found=$(digest <"$dir/out")
    if [ "$found" != "$BOOTSTRAP_SHA256" ]; then
        note "bootstrap: sha256 is $found"
        return 1
    fi
    program=$dir/$BOOTSTRAP_KIND
    case $BOOTSTRAP_KIND in osquery) program=$dir/osqueryi ;; esac
    mv "$dir/out" "$program" && chmod 700 "$program" || return 1
    case $BOOTSTRAP_KIND in native) is_native ;; *) is_osquery ;; esac
}

find_agent() {
    if find_osquery && is_osquery; then return 0; fi
    if [ -n "$BOOTSTRAP_SHA256" ] && bootstrap; then return 0; fi
    program='' version=''
    note 'no osquery found'
    return 1
}

# --- the answers ---

# Appends $dir/out and $dir/err as the answer for table $1 with flags $2.
frame() {
    line="A $1 $code $started $ended ${2:--} $out $err"
    { printf '%s\n' "$line"; cat "$dir/out" "$dir/err"; echo; } >&8 2>/dev/null
    raw=$((raw + ${#line} + 1 + out + err + 1))
    answers=$((answers + 1))
}

# An answer for table $1 that was not asked for, because of $2.
skip() {
    code=0 started=$stamp ended=$stamp out=0 err=$((${#2} + 1))
    : >"$dir/out"
    printf '%s\n' "$2" >"$dir/err"
    frame "$1" "${3-skipped}"
}

# Sets room, the bytes that an answer may have, and stamp. Once in a while, as it takes processes.
look() {
    room=$((($(free_kb "$dir") - SPARE_KB) * 512)) looked=$raw
    stamp=$(date +%s)
}

ask() {
    table=$1 sql=$2
    if [ "$((answers % 8))" -eq 0 ] || [ "$((raw - looked))" -ge 1048576 ]; then look; fi
    if [ "$((stamp - began))" -ge "$HOST_SECONDS" ]; then
        skip "$table" "the $HOST_SECONDS s of this host were used up"
        return
    elif [ "$raw" -ge "$PAYLOAD_BYTES" ]; then
        skip "$table" "the $PAYLOAD_BYTES bytes of this host were used up"
        return
    elif [ "$room" -le 0 ]; then
        skip "$table" 'the disk has too little room'
        return
    fi
    most=$QUERY_BYTES
    [ "$room" -ge "$most" ] || most=$room
    case $agent in
        native)
            run_agent "$((QUERY_SECONDS + 10))" "$most" "$program" answer "$table" --timeout "$QUERY_SECONDS"
            ;;
        *)
            # shellcheck disable=SC2086 # a command with its flags
            sql=$(exec $decode 2>/dev/null <<EOF
$sql
EOF
            )
            if [ -z "$sql" ]; then
                skip "$table" "Error: no such table: $table" ''
                return
            fi
            run_osquery "$QUERY_SECONDS" "$most" "$sql"
            ;;
    esac
    flags=''
    if [ "$out" -gt "$most" ]; then
        flags='cut' out=$most
        head -c "$most" <"$dir/out" >"$dir/kept" && mv "$dir/kept" "$dir/out"
    fi
    if [ -n "$late" ]; then flags=${flags:+$flags,}timeout; fi
    frame "$table" "$flags"
}

# Asks everything; the answers go through gzip as they come. Fails when they are not whole.
ask_all() {
    # shellcheck disable=SC2094 # as in run
    exec 3<>"$dir/payload" 8>"$dir/payload" 7<"$dir/payload" 3>&-
    pack <&7 >"$dir/gz" 2>/dev/null 7<&- 8>&- 9>&- &
    packer=$!
    exec 7<&-
    for query in $QUERIES; do ask "${query%%:*}" "${query#*:}"; done
    line="Z $answers"
    printf '%s\n' "$line" >&8 2>/dev/null
    raw=$((raw + ${#line} + 1))
    exec 8>&-
    wait "$packer"
    packed=$?
    packer=''
    [ "$packed" -eq 0 ] || { note "gzip ended with $packed"; return 1; }
    gz=$(($(wc -c <"$dir/gz")))
    sha=$(digest <"$dir/gz")
}

# --- handing over ---

head_lines() {
    name=${AWS_SSM_INSTANCE_ID:-$(hostname 2>/dev/null || uname -n)}
    echo "DIFFY1 $NONCE"
    echo "host $(printf '%s' "$name" | tr -cd 'A-Za-z0-9._:-' | head -c 255)"
    echo "uid $(id -u)"
    echo "clock $(date +%s)"
    echo "agent $agent${version:+ $version}"
    echo "answers $answers"
    echo "raw $raw"
    echo "gz $gz"
    echo "sha256 ${sha:-0000000000000000000000000000000000000000000000000000000000000000}"
    echo "via $1"
    if [ -n "$upload" ]; then echo "upload $upload"; fi
    # It starts with the end of a line.
    if [ -n "$notes" ]; then echo "${notes#?}"; fi
}

end_line() { echo "DIFFY1-END $NONCE"; }

nothing() {
    head_lines none
    end_line
}

# Prints everything when that is short enough.
print_inline() {
    # Base64 alone takes four thirds.
    [ "$((gz * 4 / 3))" -le "$INLINE_BYTES" ] || return 1
    { head_lines inline; echo data; encode64 <"$dir/gz"; end_line; } >"$dir/all"
    [ "$(($(wc -c <"$dir/all")))" -le "$INLINE_BYTES" ] || return 1
    cat "$dir/all"
}

# One PUT that creates and never replaces; sets upload to the HTTP status or to what went wrong.
put() {
    if have curl; then
        printf 'url = "%s"\n' "$URL" >"$dir/url"
        set -- sh -c "$CURL --max-time 900 -H 'If-None-Match: *' -T '$dir/gz' -o /dev/null -w '%{http_code}'"
    elif have python3; then
        printf '%s\n' "$URL" >"$dir/url"
        set -- python3 -I -c 'import os,sys,urllib.error,urllib.request
n = os.path.getsize(sys.argv[1])
h = {"If-None-Match": "*", "Content-Length": str(n), "Content-Type": "application/gzip"}
r = urllib.request.Request(sys.stdin.readline().strip(), open(sys.argv[1], "rb"), h, method="PUT")
try: print(urllib.request.urlopen(r, timeout=60).status)
except urllib.error.HTTPError as e: print(e.code)
except Exception as e: sys.exit(str(getattr(e, "reason", e)))' "$dir/gz"
    else
        upload='no curl and no python3'
        return 1
    fi
    input=$dir/url
    since=$stamp
    for pause in $PAUSES; do
        run "$((960 - stamp + since))" 65536 "$@"
        upload=$(tr -cd '0-9' <"$dir/out" | head -c 3)
        # After a 5xx the object may be there all the same: the next try says 412, and the controller looks at it.
        case $upload in 429 | 5?? | '' | 000) may_retry 960 || break ;; *) break ;; esac
    done
    input=/dev/null
    rm -f "$dir/url"
    case $upload in
        2??) return 0 ;;
        [345]??) return 1 ;;
    esac
    upload=$(without_urls <"$dir/err")
    if [ -n "$late" ]; then upload='no answer within 960 s'; fi
    upload=${upload:-ended with status $code}
    return 1
}

hand_over() {
    case $OUTPUT in
        stdout)
            head_lines stdout
            echo data
            encode64 <"$dir/gz"
            end_line
            ;;
        *)
            print_inline && return
            if [ "$OUTPUT" != upload ]; then
                note "too big for inline: $gz bytes"
                nothing
            elif put; then
                head_lines upload
                end_line
            else
                nothing
            fi
            ;;
    esac
}

# Where somebody waits at the other end of a connection, the run ends with it: ssh.sh has another one.
hold() { :; }

main() {
    set -uf
    umask 077
    IFS='
 	'
    PATH=$SYSTEM_PATH${PATH:+:$PATH}
    LC_ALL=C
    export PATH LC_ALL
    unset ENV BASH_ENV CDPATH LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT CURL_HOME SSLKEYLOGFILE
    unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
    cd /
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap cleanup EXIT
    # A handler, unlike an ignored signal, is not passed on to programs.
    trap : PIPE
    input=/dev/null
    stamp=$(date +%s)
    began=$stamp
    have setsid && setsid=setsid
    if has_tools && make_dir; then
        # First: from here on nothing is left behind, however this ends.
        start_watch
        step_back
        if find_agent && hold && ask_all; then hand_over; else nothing; fi
    else
        nothing
    fi
}

main "$@" </dev/null
exit 0
