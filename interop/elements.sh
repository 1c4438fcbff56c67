#!/bin/bash
# Our elements and users (C examples, Python) with Debian's registrar and with ours, over SCTP and side
# by side with Debian's: each side's users are served by the other side's elements.
# lab: --hosts 8
# cases: theirs ours
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
"${1:?whose registrar}" reg h1 0x00000b01
ready reg
export RSP_LOG=info RSERPOOL_LIBRARY=$BUILD/librserpool.so PYTHONPATH=$ROOT/python/src
DUMPER=h8
mkdir -p "$LOGS/shared" "$LOGS/got"
head -c 3000000 /dev/urandom >"$LOGS/shared/file"

#### C: echo ####
# A registrar announces itself every second, and the example gives up sooner unless it is told otherwise.
patient=-registrarconnecttimeout=5000
bg c-echo h2 "$EXAMPLES/echo_server" CEcho
check "C element registers" 15 holds reg CEcho
term c-user h3 "$EXAMPLES/echo_client" CEcho $patient
BEFORE[c-user]=0
echoed() { tell "$1" "line of $1"; [ "$(lines "$1" "line of $1")" -ge "${2:-3}" ]; }
check "C user with C element" 15 echoed c-user
on_sctp() { [ "$(host "$1" cat /proc/net/sctp/assocs | tail -n +2 | wc -l)" -ge "$2" ]; }
# One association with the registrar and one with the element.
check "sessions run over SCTP" 2 on_sctp h3 2
term d-user h4 stock rspterminal -poolhandle=CEcho $PULOG
check "Debian's user with C element" 15 served echo d-user 3
element d-echo h5 -echo -poolhandle=DEcho
check "Debian's element registers" 15 holds reg DEcho
term c-user2 h3 "$EXAMPLES/echo_client" DEcho $patient
check "C user with Debian's element" 15 echoed c-user2
stop c-user c-user2 d-user

#### C: file ####
bg c-file h2 "$EXAMPLES/file_server" -pool=CFile "-directory=$LOGS/shared"
check "C file server registers" 15 holds reg CFile
bg c-get h3 "$EXAMPLES/file_client" -pool=CFile file "$LOGS/got/c"
check "C file comes whole" 20 cmp -s "$LOGS/shared/file" "$LOGS/got/c"

#### Python ####
if command -v python3 >/dev/null; then
    bg py-file h6 python3 "$ROOT/python/examples/download.py" serve "$LOGS/shared" PFile
    check "Python element registers" 20 holds reg PFile
    bg py-get h7 python3 "$ROOT/python/examples/download.py" get file "$LOGS/got/py" PFile
    check "Python file comes whole" 25 cmp -s "$LOGS/shared/file" "$LOGS/got/py"
else
    cell "Python file comes whole" "SKIPPED no python3"
fi
stop c-echo c-file d-echo ${PID[py-file]:+py-file}
check "all leave" 10 empty reg
