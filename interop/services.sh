#!/bin/bash
# Debian's services and users with our registrar, which they find by multicast: nothing is configured.
# lab: --hosts 4
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
ours reg h1 0x00000b01
ready reg
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
