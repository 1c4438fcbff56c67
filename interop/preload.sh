#!/bin/bash
# Debian's programs on our library instead of their own, with Debian's registrar and with ours: every
# service, and one user of each on the library of the other side.
# lab: --hosts 5
# cases: theirs ours
. "$(dirname "$0")/common.inc"
capture "$LAB_OUT/cap.pcap" sctp or udp or tcp
"${1:?whose registrar}" reg h1 0x00000b01
ready reg
DUMPER=h5
library() { echo "with-lib $BUILD/librserpool.so"; }
for service in $SERVICES; do ELEMENT="$(library)" server $service $service h2; done
# Sessions between the two libraries, in both directions, are what the cells below add.
PROGRAM=$(library) users_served "ours with ours" h3
uses_ours() { grep -q librserpool "/proc/${PID[$1]}/maps"; }
check "elements run on our library" 1 uses_ours echo
for service in echo pingpong; do
    user $service their-$service h4
    check "$service: their user, our element" 20 served $service their-$service 3
    stop their-$service
done
stop echo pingpong
for service in echo pingpong; do server $service their-el-$service h4; done
for service in echo pingpong; do
    PROGRAM=$(library) user $service our-$service h3
    check "$service: our user, their element" 20 served $service our-$service 3
    stop our-$service
done
