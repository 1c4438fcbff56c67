# Part of tests/compat/run: three elements of each policy with their values set by rspserver's -policy=,
# and which of them is chosen for users that come one after the other.

policies=(RoundRobin WeightedRoundRobin Random WeightedRandom Priority LeastUsed LeastUsedDegradation)

# What the third element's share depends on.
value() { # POLICY NUMBER
    case $1 in
        WeightedRoundRobin | Priority) echo ":$2" ;;
        LeastUsedDegradation) echo :0.01 ;;
        WeightedRandom) [ "$2" = 3 ] && echo :998 || echo :1 ;;
    esac
}
# Loads are counted by the elements of the scripting service: a tenth for each of its jobs.
loaded() { [[ $1 == LeastUsed* ]]; }
policy_identifier() { printf '0x%x%02x' $((0x200 + $2)) "$1"; }

policy_elements() {
    local at n policy service
    for at in "${!policies[@]}"; do
        policy=${policies[at]} service=(-pingpong)
        loaded "$policy" && service=(-scripting -ssmaxthreads=10)
        for n in 1 2 3; do
            start "$policy$n" rspserver "${service[@]}" "-poolhandle=${policy}Pool" \
                "-identifier=$(policy_identifier "$at" $n)" "-policy=$policy$(value "$policy" $n)" </dev/null
        done
    done
    for at in "${!policies[@]}"; do
        for n in 1 2 3; do
            until_ $patience policy_registered "$at" $n || return 1
        done
    done
}
policy_registered() { table | grep -qi "$(policy_identifier "$1" "$2" | sed 's/^0x//')"; }

# The loads of a policy's elements, in percent, as the registrar knows them.
load() { table | grep -o "\"policy\":\"$1(load=[0-9]*" | sed 's/.*=//' | awk '{ sum += $1 } END { print sum + 0 }'; }
load_is() { [ "$(load "$1")" -ge $(($2 - 1)) ]; }

# A user; the element it was given goes into `chosen`. Users with a load stay.
one_user() { # POLICY NUMBER
    local policy=$1 name=$1.user
    if loaded "$policy"; then
        name+=$2
        start "$name" scriptingclient "-poolhandle=${policy}Pool" "-input=$work/job.tar.gz" "-output=$work/$name.tar.gz" </dev/null
    else
        start "$name" pingpongclient "-poolhandle=${policy}Pool" -interval=1000 </dev/null
    fi
    until_ $patience find_chosen "$policy" "$name" || return 1
    ! loaded "$policy" || until_ $patience load_is "$policy" $(($2 * 10)) || return 1
    loaded "$policy" || stop_all "$name"
}
find_chosen() { chosen=$(in_use "$1" "$2"); }

# How many users each element is to get.
fair() { # POLICY FIRST SECOND THIRD
    case $1 in
        RoundRobin | LeastUsed*) [ "$2 $3 $4" = "2 2 2" ] ;;
        WeightedRoundRobin) [ "$2 $3 $4" = "2 4 6" ] ;;
        Priority) [ "$2 $3 $4" = "0 0 4" ] ;;
        # Wrong once in 5000 times: one of three gets none of 24.
        Random) [ "$2" -gt 0 ] && [ "$3" -gt 0 ] && [ "$4" -gt 0 ] ;;
        # Wrong once in 2 million times: three of eight with 2 in 1000.
        WeightedRandom) [ "$4" -ge 6 ] ;;
    esac
}
users() { case $1 in WeightedRoundRobin) echo 12 ;; Priority) echo 4 ;; Random) echo 24 ;; WeightedRandom) echo 8 ;; *) echo 6 ;; esac; }

policies() {
    local policy n
    if ! policy_elements; then
        for policy in "${policies[@]}"; do verdict "$policy" choice "FAILED: elements do not register"; done
        return
    fi
    for policy in "${policies[@]}"; do
        local -A times=([1]=0 [2]=0 [3]=0)
        for ((n = 1; n <= $(users "$policy"); n++)); do
            one_user "$policy" $n || break
            times[$chosen]=$((times[$chosen] + 1))
        done
        if [ $n -le "$(users "$policy")" ]; then
            verdict "$policy" choice "FAILED: user $n gets no element"
        elif fair "$policy" "${times[1]}" "${times[2]}" "${times[3]}"; then
            verdict "$policy" choice "ok: ${times[1]}, ${times[2]}, ${times[3]} users"
        else
            verdict "$policy" choice "FAILED: elements have ${times[1]}, ${times[2]}, ${times[3]} users"
        fi
    done
    for policy in "${policies[@]}"; do
        stop_all "${policy}1" "${policy}2" "${policy}3"
        for ((n = 1; n <= $(users "$policy"); n++)); do stop_all "$policy.user$n"; done
    done
}
