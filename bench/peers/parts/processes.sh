# Waiting for and ending processes; the peers' scripts read this in.

# Run "$@" ten times a second until it succeeds, ten seconds at most.
wait_until() {
    tries=100
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

is_gone() {
    ! kill -0 "$1" 2>/dev/null
}

# Print the process number that is in file $1, if it is there.
number_in() {
    [ ! -s "$1" ] || tr -dc 0-9 <"$1"
}

# End the process whose number is in file $1, and wait for it.
stop_by() {
    number=$(number_in "$1")
    if [ -z "$number" ] || is_gone "$number"; then return 0; fi
    kill "$number"
    wait_until is_gone "$number"
}
