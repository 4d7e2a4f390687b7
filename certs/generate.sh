#!/bin/sh
# Makes certs/cert.pem and certs/key.pem: a self-signed certificate for this machine, so that
# phones and browsers on the same network can use wss://. Needs nothing but openssl.
#
# The certificate is valid
#   - for every name and address that this machine has now. Browsers compare nothing else.
#   - for 397 days. Apple's systems refuse any certificate of more than 825 days, and one from a public
#     authority of more than 398 days. With 397 days no phone refuses it, and a forgotten key expires.
#   - as an authority for its own names alone. iOS lists a certificate under "Certificate Trust Settings",
#     Android installs it as a "CA certificate", and Chromium then trusts it, only if it may sign other
#     certificates (CA:TRUE, keyCertSign). The name constraints (RFC 5280, 4.2.1.10) allow it to sign for
#     its own names only, so that a stolen key can't sign for anybody else's site.

set -eu
unset CDPATH
LC_ALL=C
export LC_ALL
umask 077 # before the first file: nobody else may read the key at any moment

DAYS=397

usage() {
    cat <<'END'
Usage: generate.sh [--force] [NAME-OR-ADDRESS ...]

Makes cert.pem and key.pem beside this script: a self-signed certificate for this machine's
host name, localhost and every address the machine has now. Names and addresses given as
arguments are added, such as the public address of the router in front of it.

  --force   replace a cert.pem and key.pem that are there already
  --help    print this
END
}

say() { printf '%s\n' "$*"; }

present() { [ -e "$1" ] || [ -L "$1" ]; }

fail() { # STATUS MESSAGE...
    status=$1
    shift
    printf 'generate.sh: %s\n' "$*" >&2
    exit "$status"
}

# What kind of certificate entry a text can be: prints "DNS", "IP" or nothing.
kind_of() {
    case $1 in
        '' | -* | .* | *. | *..* | *.-* | *-.*) ;;         # nothing, or no host name
        *:*)
            case $1 in
                *[!0-9A-Fa-f:.]*) ;;
                *) say IP ;;
            esac ;;
        *[!A-Za-z0-9._-]*) ;;                              # blanks, accents, shell characters
        *[!0-9.]*) [ ${#1} -gt 253 ] || say DNS ;;
        *)                                                 # digits and dots only
            say "$1" | awk -F. 'NF == 4 && $1 < 256 && $2 < 256 && $3 < 256 && $4 < 256 {
                print "IP" }' ;;
    esac
}

# Every name of this machine, one a line. Asks no resolver: it must work without a network.
machine_names() {
    say localhost
    host=$(uname -n)
    say "$host"
    short=${host%%.*}
    say "$short"
    say "$short.local" # what mDNS (Avahi, Bonjour) calls it
    if command -v scutil >/dev/null 2>&1; then # macOS keeps its mDNS name apart
        bonjour=$(scutil --get LocalHostName 2>/dev/null) && say "$bonjour.local"
    fi
    return 0
}

# Every address of this machine, one a line, without prefix length and scope id.
machine_addresses() {
    say 127.0.0.1
    say ::1
    {
        if command -v ip >/dev/null 2>&1; then
            ip -o addr show | awk '$3 == "inet" || $3 == "inet6" { print $4 }'
        elif command -v ifconfig >/dev/null 2>&1; then
            # Old Linux versions write "inet addr:192.0.2.1" and "inet6 addr: fe80::1/64".
            ifconfig -a | awk '$1 == "inet" || $1 == "inet6" {
                sub(/^addr:/, "", $2); print ($2 == "" ? $3 : $2) }'
        else
            # Only Linux has -I. Where it's missing, the two loopback addresses must do.
            hostname -I 2>/dev/null | tr ' ' '\n'
        fi
    } | sed -e 's,/.*,,' -e 's,%.*,,' || :
}

force=no
extra=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        -f | --force) force=yes ;;
        -*) usage >&2; fail 2 "unknown option: $1" ;;
        *)
            [ -n "$(kind_of "$1")" ] || fail 2 "neither a host name nor an address: $1"
            extra="$extra $1" ;;
    esac
    shift
done

command -v openssl >/dev/null 2>&1 || fail 1 "openssl is missing (Debian: apt install openssl)"

case $0 in
    */*) here=${0%/*} ;;
    *) here=. ;;
esac
here=$(cd -- "${here:-/}" && pwd)
cert=$here/cert.pem
key=$here/key.pem

for file in "$cert" "$key"; do
    [ ! -d "$file" ] || fail 1 "$file is a folder"
    if [ "$force" = no ] && present "$file"; then
        fail 1 "$file exists; --force replaces it and its partner"
    fi
done

# All the work happens in a folder of its own, on the same file system, until two renames put the
# pair in place. Whatever goes wrong, what was there before stays, or is put back.
work=$(mktemp -d "$here/.new.XXXXXX") || fail 1 "can't write to $here"
installing=no
clean_up() {
    status=$?
    trap '' HUP INT TERM
    if [ "$installing" = yes ]; then
        for name in cert.pem key.pem; do
            if present "$work/old-$name"; then
                mv -f "$work/old-$name" "$here/$name"
            elif ! present "$work/$name"; then
                rm -f "$here/$name" # the new one arrived, and its partner did not
            fi
        done
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# What goes into the certificate, each once: "DNS.3 = name" or "IP.4 = address" a line, and beside
# it the same as a limit on what the key may sign.
{
    machine_names | tr '[:upper:]' '[:lower:]'
    machine_addresses
    for name in $extra; do say "$name"; done
} | awk 'NF && !seen[$0]++' >"$work/wanted"

number=0
while IFS= read -r name; do
    kind=$(kind_of "$name")
    if [ -z "$kind" ]; then
        printf 'generate.sh: left out, no browser accepts it as a host name: %s\n' "$name" >&2
        continue
    fi
    number=$((number + 1))
    say "$kind.$number = $name"
    case $name in
        *:*) mask=/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ;;
        *) mask=/255.255.255.255 ;;
    esac
    [ "$kind" = IP ] || mask=
    say "permitted;$kind.$number = $name$mask" >>"$work/limits"
done <"$work/wanted" >"$work/names"

# The subject is only what a phone shows in its lists. At most 64 bytes, so no long host name.
title=$(sed -n 's/^DNS\.[0-9]* = //p' "$work/names" | sed -n 2p | cut -c 1-40)
cat >"$work/config" <<END
[req]
prompt = no
string_mask = utf8only
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = signal-server on ${title:-localhost}
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = @names
nameConstraints = critical, @limits
[names]
$(cat "$work/names")
[limits]
$(cat "$work/limits")
END

# openssl is talkative when all goes well; what it says matters only when it fails.
quietly() {
    "$@" >"$work/output" 2>&1 || {
        cat "$work/output" >&2
        fail 1 "openssl failed; nothing was changed"
    }
}

# genpkey writes PKCS#8 ("BEGIN PRIVATE KEY"), the form the server reads; ecparam would not.
quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \
    -pkeyopt ec_param_enc:named_curve -out "$work/key.pem"
quietly openssl req -new -x509 -sha256 -days "$DAYS" -config "$work/config" \
    -key "$work/key.pem" -out "$work/cert.pem"
quietly openssl x509 -in "$work/cert.pem" -noout -text # it can be read back
chmod 644 "$work/cert.pem" # a certificate is public; its key is not

# Two files can't be renamed as one, but nothing may interrupt the two renames.
trap '' HUP INT TERM
installing=yes
for name in cert.pem key.pem; do
    if present "$here/$name"; then mv -f "$here/$name" "$work/old-$name"; fi
done
mv -f "$work/key.pem" "$key"
mv -f "$work/cert.pem" "$cert"
installing=no

expires=$(openssl x509 -in "$cert" -noout -enddate)
fingerprint=$(openssl x509 -in "$cert" -noout -fingerprint -sha256)
say "Made a self-signed certificate for"
sed -e 's/^[A-Z]*\.[0-9]* = /    /' "$work/names"
say "valid until ${expires#*=} ($DAYS days), SHA-256 fingerprint"
say "    ${fingerprint#*=}"
say
say "    $cert"
say "    $key (secret: never send it anywhere, never commit it)"
say
say "Next: signal-server --cert '$cert' --key '$key'"
say "Then open https://ADDRESS:8443/ on the phone and compare the fingerprint; docs/lan.md"
say "says what the phone asks. When an address changes, or after $DAYS days, run this again"
say "with --force."
