# Runs units side by side: most of them wait (for a lifetime to end, for a fail-over) more than they compute. A unit is one
# command with a folder and a log of its own. Its log is printed whole when it ends. A unit that hangs is killed, with
# everything that it started, and named. Sourced by build/test, never run.

# So many units at once, on a machine of so many processors.
AT_ONCE=$((2 * $(nproc) + 1))

# Seconds within which a test has to end (.config/nextest.toml says the same), and a step, which may compile or pack.
declare -A LIMIT=([tests]=180 [step]=1800)

UNIT_PART=()
UNIT_TITLE=()
UNIT_COMMAND=()
UNIT_KIND=()
UNIT_PID=()
UNIT_BEGAN=()
UNIT_HUNG=()
WAITING=()
RUNNING=()

# unit PART KIND TITLE COMMAND...: one more for run_units. The kind is `tests` for PHPUnit, which writes to TEST_LOG what it does,
# and `step` for what passes or fails as a whole.
unit() {
    local number=${#UNIT_PART[@]}
    UNIT_PART+=("$1")
    UNIT_KIND+=("$2")
    UNIT_TITLE+=("$3")
    shift 3
    UNIT_COMMAND+=("$(printf '%q ' "$@")")
    WAITING+=("$number")
}

# unit_folder NUMBER: in memory, and open to the users that php-fpm's workers run as.
unit_folder() { printf '%s/unit-%d' "$SHARED" "$1"; }

# unit_tests NUMBER: what PHPUnit tells while it runs. Of another unit there is its beginning alone.
unit_tests() { printf '%s/unit-%d.tests' "$TEMP" "$1"; }

# run_units: runs all that wait, and returns when the last has ended.
run_units() {
    local number still look=0
    while [ ${#WAITING[@]} -gt 0 ] || [ ${#RUNNING[@]} -gt 0 ]; do
        while [ ${#WAITING[@]} -gt 0 ] && [ ${#RUNNING[@]} -lt "$AT_ONCE" ]; do
            start_unit "${WAITING[0]}"
            WAITING=("${WAITING[@]:1}")
        done
        sleep 0.1
        still=()
        for number in "${RUNNING[@]}"; do
            if ! kill -0 "${UNIT_PID[number]}" 2>/dev/null; then
                end_unit "$number"
                continue
            fi
            still+=("$number")
            if [ $((look % 50)) = 0 ] && [ $((EPOCHSECONDS - $(stat -c %Y "$(unit_tests "$number")"))) -ge "${LIMIT[${UNIT_KIND[number]}]}" ]; then
                UNIT_HUNG[number]=yes
                kill_unit "$number"
            fi
        done
        RUNNING=("${still[@]}")
        look=$((look + 1))
    done
}

start_unit() {
    local number=$1 folder
    folder=$(unit_folder "$number")
    mkdir -m 711 "$folder"
    : >"$(unit_tests "$number")"
    UNIT_BEGAN[number]=$EPOCHREALTIME
    # Variable and folder are also the marks by which relatives() finds whatever the unit left behind.
    [ "${UNIT_KIND[number]}" = tests ] || folder=$ROOT
    (cd "$folder" && TEST_FOLDER=$(unit_folder "$number") TEST_LOG=$(unit_tests "$number") \
        exec setsid setpriv --pdeathsig TERM -- bash -c "exec ${UNIT_COMMAND[number]}") </dev/null >"$TEMP/unit-$number.log" 2>&1 &
    UNIT_PID[number]=$!
    GROUPS_STARTED+=($!)
    RUNNING+=("$number")
}

# relatives NUMBER: the processes that the unit started, in whatever group they are by now: by the variable, and by the folder
# that they work in, for php-fpm writes its title over its variables.
relatives() {
    {
        grep -lsza -- "^TEST_FOLDER=$(unit_folder "$1")\$" /proc/[0-9]*/environ || true
        find /proc/[0-9]*/cwd -maxdepth 0 '(' -lname "$(unit_folder "$1")" -o -lname "$(unit_folder "$1")/*" ')' || true
    } 2>/dev/null | cut -d/ -f3 | sort -u
}

# kill_unit NUMBER: asked to end, PHPUnit stops its servers; who does not hear is killed.
kill_unit() {
    local pid=${UNIT_PID[$1]}
    kill -TERM -- "-$pid" 2>/dev/null || true
    for _ in {1..50}; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
}

# end_unit NUMBER: prints its log, counts its tests, and sees to it that nothing of it lives on.
end_unit() {
    local number=$1 part=${UNIT_PART[$1]} title=${UNIT_TITLE[$1]} status=0 took good bad skipped left=() problem=
    # Without bash's own word of who was killed.
    wait "${UNIT_PID[number]}" 2>/dev/null || status=$?
    forget_group "${UNIT_PID[number]}"
    took=$(seconds_since "${UNIT_BEGAN[number]}")
    read -r good bad skipped < <(count_tests "$(unit_tests "$number")")
    [ "${UNIT_KIND[number]}" = tests ] || [ "$status" != 0 ] || good=1

    mapfile -t left < <(relatives "$number")
    if [ ${#left[@]} -gt 0 ]; then
        # They have been told already, by the kernel or by the test.
        sleep 1
        mapfile -t left < <(relatives "$number")
    fi
    if [ ${#left[@]} -gt 0 ]; then
        problem=" left processes behind: $(ps -o args= -p "$(IFS=,; echo "${left[*]}")" | cut -c1-60 | paste -sd, - || true)"
        kill -KILL "${left[@]}" 2>/dev/null || true
    fi
    if [ -n "${UNIT_HUNG[number]:-}" ]; then
        problem=" was killed: after ${LIMIT[${UNIT_KIND[number]}]} s there was no end of $(last_test "$number")"
        bad=$((bad + 1))
    fi
    # It crashed, or there was nothing to run.
    if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ -n "$problem" ] || [ $((good + skipped)) = 0 ]; }; then bad=1; fi
    say "$title: $(printf '%.0f' "$took") s"
    cat "$TEMP/unit-$number.log"
    count "$part" "$good" "$bad" "$took"
    note_skipped "$(unit_tests "$number")" "$part" "$skipped"
    [ "$bad" = 0 ] || PROBLEMS+=("$title$problem$(failures "$(unit_tests "$number")")")
}

# forget_group PID: it has ended, and another process may get its number before this script is done.
forget_group() {
    local group left=()
    for group in "${GROUPS_STARTED[@]}"; do [ "$group" = "$1" ] || left+=("$group"); done
    GROUPS_STARTED=("${left[@]}")
}

# count_tests FILE: passed, failed and skipped tests of a log in TeamCity's format, as PHPUnit 9 to 11 write it. A test that did
# not come to its end is none of the three.
count_tests() {
    awk -F"name='" '
        { name = $2; sub(/\047 .*/, "", name) }
        /^##teamcity\[testStarted / { fate[name] = "" }
        /^##teamcity\[testFailed / { fate[name] = "failed" }
        /^##teamcity\[testIgnored / { fate[name] = "skipped" }
        /^##teamcity\[testFinished / { if (fate[name] == "") fate[name] = "passed" }
        END { for (name in fate) number[fate[name]]++; print number["passed"] + 0, number["failed"] + 0, number["skipped"] + 0 }' "$1"
}

# note_skipped FILE PART NUMBER: keeps which tests were skipped, and why.
note_skipped() {
    [ "$3" -gt 0 ] || return 0
    SKIPPED=$((SKIPPED + $3))
    sed -nE "s/^##teamcity\[testIgnored name='(([^'|]|\|.)*)' message='(([^'|]|\|.)*)'.*/\1: \3/p" "$1" | sed -E "s/\|n/ /g; s/\|(.)/\1/g; s/^/$2: /" >>"$TEMP/skipped"
}

# failures FILE: each test of a log that failed, and what it said, on a line of its own. The whole log of a unit stands far above the
# sum, and who keeps the end of a log keeps this.
failures() {
    sed -nE "s/^##teamcity\[testFailed name='(([^'|]|\|.)*)' message='(([^'|]|\|.)*)'.*/\n    \1: \3/p" "$1" |
        sed -E "s/\|[nr]/ /g; s/\|([^n])/\1/g" | cut -c1-600
}

# last_test NUMBER: what the unit was at.
last_test() {
    local name
    name=$(sed -nE "s/^##teamcity\[testStarted name='(([^'|]|\|.)*)'.*/\1/p" "$(unit_tests "$1")" | tail -n 1)
    printf '%s' "${name:-it}"
}

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }
