#!/bin/sh
# What is different when collect.sh comes over SSH; stands in place of its last lines.
#
# The controller keeps stdin open for as long as it waits. sshd closes it when the controller goes away or the connection
# dies, and that ends the run. A program for a host without osquery comes through stdin, too, once it is asked for. While
# an agent is looked for stdin is number 8, which the answers use later.
# shellcheck disable=SC2034,SC2154,SC2317 # the other half of the script has the variables and calls the functions

# --- job ---
PUSH_BYTES='0'
# --- end of job ---

# One process without children: on most systems stdin is the same socket as stdout, and a session ends when the last who
# has it open does.
hold() {
    # shellcheck disable=SC2016,SC2086 # the inner shell expands it; $setsid is one word or none
    $setsid sh -c '
        while read -r _; do :; done
        [ -d "$1" ] && kill -HUP "$2" && sleep 15 && [ -d "$1" ] && kill -KILL "$2"
    ' sh "$dir" "$$" <&8 >/dev/null 2>&1 8<&- 9>&- &
    leash=$!
    exec 8<&-
}

# Asks for the program, as there is no osquery here.
fetch() {
    if [ "$((PUSH_BYTES / 1024))" -ge "$(($(free_kb "$dir") - SPARE_KB))" ]; then
        note "bootstrap: no room for $PUSH_BYTES bytes below ${dir%/*}"
        return 1
    fi
    echo "DIFFY1-PUSH $NONCE $(uname -s) $(uname -m)"
    said=''
    read -r said <&8
    [ "$said" = send ] || { note "bootstrap: ${said:-nobody sends it}"; return 1; }
    head -c "$PUSH_BYTES" <&8 >"$dir/out" 2>/dev/null
    stamp=$(date +%s)
    # The time of the queries begins now.
    began=$stamp
}

main "$@" 8<&0 </dev/null
exit 0
