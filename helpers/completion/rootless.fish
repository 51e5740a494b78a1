# Completion of rootless for fish. The words come from the program; this script shows them.

function __rootless_complete
    set -l current (commandline --current-token)
    for line in (rootless __complete (commandline --current-process --tokenize --cut-at-cursor)[2..] "$current" 2>/dev/null)
        switch $line
            case \tfiles
                __fish_complete_path "$current"
            case \tdirectories
                __fish_complete_directories "$current" ''
            case '*'
                echo $line
        end
    end
end

complete --command rootless --no-files --keep-order --arguments '(__rootless_complete)'
