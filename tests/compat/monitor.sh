# Part of tests/compat/run: what Debian's cspmonitor shows of our registrar and library.

# The monitor's last whole table, without colours, one component a line.
monitor_table() {
    sed -e 's/\x1b\[[0-9;]*[A-Za-z]//g' "$work/monitor.log" | tac | awk '
        /Component Status --/ { if (whole) { print; exit } whole = 1; next }
        whole' | grep -a '^P[REU] \|Component Status'
}
shown() { monitor_table | grep -qaE -- "$1"; }
shown_count() { monitor_table | sed -n "s/.* \([0-9]*\) ${1}s.*/\1/p" | head -n 1; }

see() { # COLUMN PATTERN
    if until_ $patience shown "$2"; then
        verdict monitor "$1" "ok: $(monitor_table | grep -aE -m1 -- "$2" | cut -c1-150)"
    else
        verdict monitor "$1" "FAILED: no line like $2"
    fi
}

monitor() {
    local service all=0 id
    for service in "${services[@]}"; do registered "$service" 1 && all=$((all + 3)); done
    see PR "^PR .* A=0 \"$all\[$all\] PEs in $((all / 3)) Pool\(s\), 0 Peer\(s\)\""
    # An element talks to its registrar; a user to its registrar and to its element.
    id=$(identifier pingpong 1)
    see PE "^PE .$(printf '%08x' "$id") .* A=1 .*[01] Sessions?\""
    see PU '^PU .* A=2 "1 Session"'
}

# A user that ends says so.
monitor_end() {
    local users
    users=$(shown_count PU)
    kill -INT "${pid[pingpong]}"
    fewer() { [ "$(shown_count PU)" -lt "$users" ]; }
    if until_ $patience fewer; then
        verdict monitor gone "ok: $users PUs before the end of one, $(shown_count PU) after it"
    else
        verdict monitor gone "FAILED: a user that ended is still shown"
    fi
}
