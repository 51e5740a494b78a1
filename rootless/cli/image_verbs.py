"""The verbs of images, as the command line declares them."""

from __future__ import annotations

from rootless.cli.flags import CHOICE, LIST_FORMAT, SWITCH, VALUE, Flag, Verb, Word

STORE = Flag(
    "--store", VALUE, "DIR", "directory of the images (default: $ROOTLESS_IMAGES, else in your data directory)"
)
PLATFORM = Flag("--platform", VALUE, "OS/ARCH[/VARIANT]", "platform of the image (default: this host's)")
PULL = Flag(
    "--pull",
    CHOICE,
    "missing|always|never",
    "when to ask the registry: if the image is not in the store, every time, or not at all (default: missing)",
)
_QUIET = Flag("-q --quiet", SWITCH, "", "show no progress")
_REGISTRY = Word("REGISTRY", "registry", optional=True)

_FORMS = (
    "IMAGE is [docker://][REGISTRY/]NAME[:TAG|@DIGEST], oci:DIR[:TAG], oci-archive:FILE[:TAG], "
    "docker-archive:FILE[:NAME], or, by skopeo, docker-daemon:NAME or containers-storage:NAME."
)

IMAGE_VERBS = {
    "pull": Verb(
        "cli.images:pull",
        "download an image and store it as one file",
        (
            Flag("-o --output", VALUE, "FILE", "write the image to FILE instead, such as debian.sqsh"),
            PLATFORM,
            STORE,
            _QUIET,
        ),
        (Word("IMAGE", "image"),),
        about=f"{_FORMS}\n\nA name without a registry is looked up as registries.conf says, else on Docker Hub. "
        "Mirrors, certificates and passwords are those of podman and docker. The name and the digest are printed; "
        "a download that was interrupted continues.",
        examples=(
            "rootless pull docker://debian:13",
            "rootless pull --output /scratch/debian.sqsh quay.io/me/debian@sha256:…",
            "rootless pull --platform linux/arm64 debian",
        ),
    ),
    "images": Verb(
        "cli.images:images",
        "list images",
        (LIST_FORMAT, Flag("-q --quiet", SWITCH, "", "print only digests"), STORE),
        about="Images of shared stores are in the list too: $ROOTLESS_ADDITIONAL_IMAGES names their directories, "
        "separated by colons. They are used for reading only, and belong to root or to you.",
        examples=("rootless images", "rootless images --format json | jq '.[].reference'"),
    ),
    "image": Verb(
        "cli.images:image",
        "remove or inspect images",
        (PLATFORM, STORE),
        (Word("rm|prune|inspect", "action", kind=CHOICE),),
        rest=Word("IMAGE", "args", optional=True),
        about="rm removes images from the store; running containers keep theirs. prune removes images without a name, "
        "downloaded layers, which images do not need once they are made, what interrupted downloads left, and unpacked "
        "images that no container uses. inspect prints images with their configuration as JSON.\n\nIMAGE is a name or "
        "the beginning of a digest.",
        examples=("rootless image rm debian:13", "rootless image inspect debian:13 | jq '.[].config.config.Env'"),
    ),
    "login": Verb(
        "cli.images:login",
        "log in to a registry",
        (
            Flag("-u --username", VALUE, "USER", "user name (default: it is asked for)"),
            Flag("--password-stdin", SWITCH, "", "read the password from standard input"),
        ),
        (_REGISTRY,),
        about="The registry checks the password. It is stored as podman stores it: in $REGISTRY_AUTH_FILE, else in "
        "$XDG_RUNTIME_DIR/containers/auth.json, or by the credential helper that this file names (default registry: "
        "docker.io).",
        examples=("rootless login quay.io", "cat password | rootless login -u me --password-stdin registry.example"),
    ),
    "logout": Verb(
        "cli.images:logout",
        "forget the password for a registry",
        (Flag("-a --all", SWITCH, "", "forget all passwords"),),
        (_REGISTRY,),
        examples=("rootless logout quay.io",),
    ),
}
