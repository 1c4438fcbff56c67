#!/bin/bash
# One registrar of theirs and one of ours on each side of a network that falls apart and is joined again: for
# a moment (updates are lost, an audit finds that out) and for so long that each side takes the other over.
# lab: --hosts 9
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
theirs t1 h1 0x00000b01
ours o2 h2 0x00000b02
theirs t3 h3 0x00000b03
ours o4 h4 0x00000b04
for name in t1 o2 t3 o4; do ready $name; done
check "four start at the same time" 10 peers o2 3
check "four start at the same time" 10 peers o4 3
element e1 h5 -echo -identifier=0x00000501 -rereginterval=4000
element e2 h6 -echo -identifier=0x00000601 -rereginterval=4000
check "elements are known on both sides" 10 holds o2 EchoPool 0x00000601
check "elements are known on both sides" 10 holds o4 EchoPool 0x00000501
# Ours alone is cut off, shorter than anybody needs to notice; a pool comes and goes without it.
hostlink h4 cut
element e3 h7 -daytime -identifier=0x00000701 -rereginterval=4000 $(only t1)
sleep 1
hostlink h4 heal
check "ours catches up after a cut" 12 holds o4 DaytimePool 0x00000701
hostlink h3 cut
stop e3
hostlink h3 heal
check "theirs catches up after a cut" 12 equal o2 t3
sleep 11
say "partition"
for h in h3 h4 h6; do hostlink $h part far; done
check "each side keeps its element" 25 gone o2 EchoPool 0x00000601
check "each side keeps its element" 25 gone o4 EchoPool 0x00000501
check "each side keeps its element" 5 holds o2 EchoPool 0x00000501
check "each side keeps its element" 5 holds o4 EchoPool 0x00000601
check "each side knows two registrars" 10 peers o2 1
check "each side knows two registrars" 10 peers o4 1
say "joined"
for h in h3 h4 h6; do hostlink $h part -; done
check "all registrars meet again" 20 peers o2 3
check "all registrars meet again" 20 peers o4 3
check "both elements on both sides" 15 holds o2 EchoPool 0x00000601
check "both elements on both sides" 15 holds o4 EchoPool 0x00000501
check "all hold the same in the end" 15 equal o2 o4 t1 t3
stop e1 e2 t1 o2 t3 o4
