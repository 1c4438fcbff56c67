#!/bin/bash
# Bad weather for a minute: pings, and an element in its pool. Debian's library and registrar have it beside ours, at
# the same time, in networks of their own. Four users each: how long an association stalls behind what is lost is luck.
# lab: --hosts 6
# cases: loss far
. "$(dirname "$0")/common.inc"
case ${1:?case} in
    loss) words="loss 20%" ;;      # of what each host sends
    far) words="delay 400ms" ;;    # 800 ms there and back
esac
seconds=${WEATHER_SECONDS:-60}
for n in 4 5 6; do hostlink h$n part ours; done
theirs theirs h1 0x00000b01
ours ours h4 0x00000b04
ready theirs
ready ours
declare -A SENT FIRST=([theirs]=1 [ours]=4) LIBRARY=([theirs]=stock [ours]="with-lib $BUILD/librserpool.so")
for side in theirs ours; do
    ELEMENT=${LIBRARY[$side]} PROGRAM=${LIBRARY[$side]}
    server pingpong $side-pe h$((FIRST[$side] + 1)) -identifier=0x00000501 $(only $side)
    until_ 20 grep -aqs 'registered PingPongPool' "$LOGS/$side.log"
    for n in 1 2 3 4; do user pingpong $side-pu$n h$((FIRST[$side] + 2)) $(only $side); done
done
all_served() { for n in 1 2 3 4; do served pingpong $1-pu$n 5 || return 1; done; }
check "users of theirs are served" 20 all_served theirs
check "users of ours are served" 20 all_served ours

pings() { cat "$LOGS/$1"-pu?.log | grep -ac '^Message #'; }
for side in theirs ours; do SENT[$side]=-$(pings $side); done
start=$EPOCHREALTIME
for n in 1 2 3 4 5 6; do host h$n tc qdisc replace dev eth0 root netem limit 10000 $words; done
sleep "$seconds"
end=$EPOCHREALTIME
for side in theirs ours; do SENT[$side]=$((${SENT[$side]} + $(pings $side))); done
# answers SIDE: how many came meanwhile, and the longest time that a user was without.
answers() {
    local n
    for n in 1 2 3 4; do
        grep -a 'Ack #' "$LOGS/$1-pu$n.log" | sed -nE 's/^.*([0-9]{2}):([0-9]{2}):([0-9]{2}\.[0-9]+): Ack #.*$/\1 \2 \3/p' |
            awk -v start="${start/,/.}" -v end="${end/,/.}" '
                BEGIN { start %= 86400; end %= 86400; last = start }
                { t = $1 * 3600 + $2 * 60 + $3 }
                t >= start && t <= end { n++; if (t - last > gap) gap = t - last; last = t }
                END { if (end - last > gap) gap = end - last; print n + 0, gap }'
    done | awk '{ n += $1; if ($2 > gap) gap = $2 } END { printf "%d %.1f\n", n, gap }'
}
for side in theirs ours; do
    read -r ANSWERED gap < <(answers $side)
    result="ok $ANSWERED of ${SENT[$side]}, longest gap $gap s"
    # The kernel is the same, so that much more than its luck is ours.
    if [ $side = theirs ]; then their=$ANSWERED; elif ((ANSWERED * 10 < their * 7)); then result="WRONG ${result#ok }"; fi
    cell "$1: pings answered, $side" "$result"
done
out=$(lines ours 'Removed PingPongPool')
[ "$out" = 0 ] && cell "$1: element stays in its pool at ours" ok || cell "$1: element stays in its pool at ours" "WRONG: removed $out times"
for n in 1 2 3 4 5 6; do host h$n tc qdisc del dev eth0 root; done
stop {theirs,ours}-pu{1,2,3,4} theirs-pe ours-pe theirs ours
