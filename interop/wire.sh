#!/bin/bash
# Only our own programs, so that every message on the wire is ours: all types that we send, for tshark.
# lab: --hosts 7
# cases: sctp tcp
. "$(dirname "$0")/common.inc"
transport=${1:?transport}
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
# What the capture has to show. Cookies travel in sessions, and over TCP in frames of our own there. A
# business card is something that we take and never send.
case $transport in
    sctp) echo "asap 1 2 3 4 5 6 7 8 9 10 11 12 14" ;;
    tcp) echo "asap 1 2 3 4 5 6 7 8 9 10 14" ;;
esac >"$LOGS/types"
echo "enrp 1 2 3 4 5 6 7 8 9 10" >>"$LOGS/types"
export RSP_TRANSPORT=$transport
run_by preload
for n in 1 2 3; do ours r$n h$n 0x00000b0$n -transport=$transport; ready r$n; done
check "registrars meet" 10 peers r1 2
# The second one is at a registrar of its own, so that this one has something to leave behind.
server pingpong pp1 h4 -identifier=0x00000401 -rereginterval=2000
server pingpong pp2 h5 -identifier=0x00000501 -rereginterval=2000
server echo e1 h4 -identifier=0x00000402 -rereginterval=2000 "-registrar=$(address r1):3863" -asapannounce=off
server echo e2 h5 -identifier=0x00000502 -rereginterval=2000
server echo e3 h4 -identifier=0x00000403 -rereginterval=2000
five() { [ "$(view r3 | wc -l)" = 5 ]; }
check "elements register" 20 five
user pingpong pu h6
check "sessions" 15 served pingpong pu 10
used() {
    used=$(grep -aoE 'from PE \$00000[45]01' "$LOGS/pu.log" | tail -n 1 | grep -oE '[45]01$')
    [ -n "$used" ]
}
until_ 5 used
case $used in 401) crash pp1 ;; *) crash pp2 ;; esac
BEFORE[pu]=$(progress pingpong pu)
check "failover" 15 served pingpong pu 10
term eu h7 $PROGRAM rspterminal -poolhandle=EchoPool $PULOG
check "echo" 15 served echo eu 2
# A user that says that it can't reach its element.
if command -v python3 >/dev/null; then
    RSERPOOL_LIBRARY=$BUILD/librserpool.so PYTHONPATH=$ROOT/python/src host h7 timeout 20 python3 -c '
import rserpool
with rserpool.connect("EchoPool") as session:
    session.failover(unreachable=True)' >"$LOGS/unreachable.log" 2>&1 || cell "report of an element" WRONG
else
    sed -i 's/ 9 10 11/ 10 11/; s/ 9 10 14/ 10 14/' "$LOGS/types"
fi
# Something unknown with the bits "stop and report", at both services.
if [ "$transport" = sctp ]; then
    host h7 "$EXAMPLES/flood" "$(address r2)" 3863 unknown 11 0 0 || cell "error of ASAP" WRONG
    host h7 "$EXAMPLES/flood" "$(address r2)" 9901 unknown 12 0 0 || cell "error of ENRP" WRONG
else
    asap='\x01\x00\x00\x0c\x40\x77\x00\x08\x00\x00\x00\x01'
    enrp='\x01\x00\x00\x14\x00\x00\x77\x77\x00\x00\x0b\x02\x40\x77\x00\x08\x00\x00\x00\x01'
    for what in "3863 $asap" "9901 $enrp"; do
        # shellcheck disable=SC2016,SC2086
        host h7 timeout 3 bash -c 'exec 9<>/dev/tcp/10.0.0.2/$0 && printf "$1" >&9 && head -c 4 <&9 >/dev/null' $what ||
            cell "error at port ${what%% *}" WRONG
    done
fi
stop e3
crash r1
check "takeover" 10 peers r3 1
sleep 2
stop pu eu
stop e1 e2 pp1 pp2 r2 r3
