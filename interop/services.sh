#!/bin/bash
# Debian's services and users with our registrar, which they find by multicast: nothing is configured.
# lab: --hosts 4
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
# Beyond what a hop count can be: said, and as far as it goes, as with rsplib's.
ours reg h1 0x00000b01 -announcettl=1000
ready reg
goes_far() { tcpdump -r "$LAB_OUT/cap.pcap" -nv 'udp and ip and dst port 3863' 2>/dev/null | grep -q 'ttl 255'; }
check "announcettl: too much is said" 2 more_than reg 'announcettl=1000.*taken as 255' 0
check "announcettl: announcements go as far as can be" 10 goes_far
for service in $SERVICES; do server $service $service h2; done
names=(echo:EchoPool discard:DiscardPool daytime:DaytimePool pingpong:PingPongPool calcapp:CalcAppPool
    scripting:ScriptingPool)
for pair in "${names[@]}"; do
    check "${pair%:*}: registers" 10 more_than reg "Successfully registered ${pair#*:}/" 0
done
users_served "serves its user" h3
term nobody h3 stock rspterminal -poolhandle=NoSuchPool $PULOG
sleep 2
check "a pool that does not exist: its user lives" 1 alive nobody
stop nobody
# shellcheck disable=SC2086
stop $SERVICES
check "all leave" 5 more_than reg 'deregistered' 5
stop reg
