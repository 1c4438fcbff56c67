#!/bin/bash
# Sessions survive their element: killed, its host cut off, or frozen. Each service has three elements on
# three hosts and one user on a host of its own. "debian": all but the registrar is Debian's;
# "preload": their programs on our library; "examples": our own programs.
# lab: --hosts 8
# cases: debian preload
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
ours reg h1 0x00000b01
ready reg
run_by "${1:?case}"
case $1 in
    debian) patience=35 ;;
    preload) patience=20 ;;
esac
JOB_SECONDS=100
tested="echo pingpong calcapp scripting"
declare -A HOST=([echo]=h5 [pingpong]=h6 [calcapp]=h7 [scripting]=h8)
for service in $tested; do
    for n in 2 3 4; do
        server $service $service$n h$n -identifier=0x0000${n}0$(printf '%02x' ${#service}) -rereginterval=5000
    done
done
twelve() { [ "$(view reg | wc -l)" = 12 ]; }
check "three elements of each service" 30 twelve
for service in $tested; do user $service $service ${HOST[$service]}; done

# in_use SERVICE: the number of the host with which its user has a session.
in_use() {
    host ${HOST[$1]} cat /proc/net/sctp/assocs | grep -oE '(10\.0\.0\.|fd00::)[234]\b' | sed 's/.*[.:]//' | sort -u |
        head -n 1 | grep .
}
# strike NAME COMMAND...: does COMMAND to the element in use of each service; users have to get on with
# another one.
declare -A VICTIM
# Between two jobs a user has no session, so what one look finds counts.
found() { VICTIM[$1]=$(in_use "$1"); }
enough() { case $1 in scripting) echo 1 ;; calcapp) echo 2 ;; *) echo 3 ;; esac; }
got_on() { # SERVICE: served by somebody else
    local who
    served $1 $1 "$(enough $1)" && who=$(in_use $1) && [ "$who" != "${VICTIM[$1]}" ]
}
strike() {
    local what=$1 service
    shift
    for service in "$@"; do
        until_ 10 found $service
        BEFORE[$service]=$(progress $service $service)
    done
    for service in "$@"; do
        [ -n "${VICTIM[$service]}" ] || { cell "$service: $what" "WRONG: no session"; continue; }
        hit $what $service "${VICTIM[$service]}"
    done
    for service in "$@"; do
        check "$service: $what" $patience got_on $service
    done
}
hit() { # FAULT SERVICE HOSTNUMBER
    case $1 in
        killed) crash "$2$3" ;;
        frozen) freeze "$2$3" ;;
        "cut") hostlink "h$3" cut ;;
    esac
}
for service in $tested; do check "$service: works" 20 served $service $service "$(enough $service)"; done
strike killed $tested
for service in $tested; do
    n=${VICTIM[$service]:-}
    [ -z "$n" ] || server $service $service$n h$n -identifier=0x0000${n}0$(printf '%02x' ${#service}) -rereginterval=5000
done
check "the killed ones are there again" 20 twelve
# rsplib's users wait for SCTP to notice; a hung process answers at that level, so only those services
# whose own protocol asks for signs of life notice.
case $1 in
    debian) strike frozen calcapp scripting ;;
    preload) strike frozen $tested ;;
esac
for n in 2 3 4; do
    for service in $tested; do [ -z "${PID[$service$n]:-}" ] || kill -CONT "${PID[$service$n]}" 2>/dev/null; done
done
check "the frozen ones are there again" 20 twelve
strike cut echo
