# bash completion for lognot(8). It needs nothing of the package bash-completion.

_lognot() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}

    # Readline splits --config=FILE into three words: --config, = and FILE.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    COMPREPLY=()
    case $option in
    -c | --config | -l | --logfile | -t | --test | -p | --pid | --exec-socket)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        ;;
    -w | --chdir)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        ;;
    -u | --uid)
        mapfile -t COMPREPLY < <(compgen -u -- "$word")
        ;;
    -g | --gid)
        mapfile -t COMPREPLY < <(compgen -g -- "$word")
        ;;
    -T | --retest) ;; # a regex is anybody's guess
    *)
        mapfile -t COMPREPLY < <(compgen -W '
            -c --config -d --daemon -g --gid -h --help -l --logfile -p --pid -s --stdout -T --retest
            -t --test -u --uid -V --version -v --verbose -w --chdir --exec-socket --executor' -- "$word")
        ;;
    esac
}

complete -F _lognot lognot
