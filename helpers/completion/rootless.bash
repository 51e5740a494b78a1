# shellcheck shell=bash
# Completion of rootless for bash. The words come from the program; this script shows them.

_rootless() {
    local word line current breaks cut="" glue=""
    local -a words=()
    # COMP_WORDS is split at = and : too, and has the quotes and backslashes that were typed.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        word=${word//[\'\"\\]/}
        if [[ -n $word && -z ${word//[=:]/} && ${#words[@]} -gt 0 ]]; then
            words[-1]+=$word
            glue=yes
        elif [[ -n $glue ]]; then
            words[-1]+=$word
            glue=""
        else
            words+=("$word")
        fi
    done
    current=${words[-1]}
    # bash replaces only what follows the last of these characters.
    breaks=${COMP_WORDBREAKS//[^:=]/}
    [[ -z $breaks || $current != *["$breaks"]* ]] || cut=${current%"${current##*["$breaks"]}"}
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            $'\tfiles') mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "${current#"$cut"}") ;;
            $'\tdirectories') mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "${current#"$cut"}") ;;
            *)
                word=${line%%$'\t'*}
                [[ $word != *[=:,] ]] || compopt -o nospace
                COMPREPLY+=("${word#"$cut"}")
                continue
                ;;
        esac
        compopt -o filenames
    done < <(rootless __complete "${words[@]}" 2>/dev/null)
}

complete -o nosort -F _rootless rootless
