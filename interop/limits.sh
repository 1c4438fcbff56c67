#!/bin/bash
# What rsplib's registrars would not survive, or count otherwise: handles of more than 32 bytes, elements
# whose record is longer than its tables, so many elements that its checksum overflows.
# lab: --hosts 6
. "$(dirname "$0")/common.inc"
DUMPER=h6
# Their log lines cost more than what is measured here.
theirs t1 h1 0x00000b01 -loglevel=3
ready t1
ours o2 h2 0x00000b02 -loglevel=3
ready o2
ours o3 h3 0x00000b03 -loglevel=3
ready o3
check "registrars meet" 10 peers o2 2
long=PoolWhoseHandleHasMoreThanThirtyTwoBytes
bg long h4 "$EXAMPLES/flood" "$(address o2)" 3863 register 1 100 $long
bg short h4 "$EXAMPLES/echo_server" Short -asapannounce=off "-registrar=$(address o2):3863"
check "long handle: held by ours" 15 holds o2 $long
check "long handle: told to ours" 5 holds o3 $long
check "short handle: told to theirs" 10 holds t1 Short
check "long handle: withheld from theirs" 1 gone t1 $long
check "long handle: said once in the log" 1 [ "$(lines o2 "can't hold some")" = 1 ]
check "theirs lives" 1 alive t1
# Handles of the largest bytes: the sum passes 2^32 after some 4000 elements.
handles=()
for n in 1 2 3 4 5; do handles+=("$(printf '\xff%.0s' {1..30})0$n"); done
bg many h5 "$EXAMPLES/flood" "$(address o2)" 3863 register 900 60 "${handles[@]}"
check "4500 elements register with ours" 40 grep -q '^4500 ' "$LOGS/many.log"
# theirs compares checksums at each presence: were they different, it would ask for our table again and again.
requests() { page o2 /metrics | sed -n 's/^rserpool_handle_table_requests_total //p'; }
quiet() { local before; before=$(requests); sleep 5; [ "$(requests)" = "$before" ]; }
check "checksums agree: theirs does not ask for our table" 30 quiet
check "checksums agree: theirs does not ask for our table" 1 quiet
check "theirs still lives" 1 alive t1
stop many long short o3 o2 t1
