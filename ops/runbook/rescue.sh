#!/bin/sh
# First boot of a rescue instance: the root volume of another machine comes as
# /dev/sdf. Mends the keys on it and says one line on the console. The timer ends
# this instance for good where nobody terminates it.
[ -n "${RESCUE_CONSOLE:-}" ] || shutdown -P +60 >/dev/null 2>&1
user='@USER@'
key='@KEY@'
dir=${RESCUE_MOUNT:-/mnt/gt06ops}
say() {
  umount "$dir" 2>/dev/null
  echo "gt06ops-rescue: $1" >"${RESCUE_CONSOLE:-/dev/console}"
  exit 0
}

# The volume may be named otherwise (nvme1n1); it is the disk that has no
# mounted part and came last.
find_part() {
  for disk in /dev/sdf /dev/xvdf $(ls -d /dev/nvme?n1 2>/dev/null); do
    [ -b "$disk" ] || continue
    grep -q "^$disk" /proc/mounts && continue
    for part in "${disk}1" "${disk}p1" "$disk"; do
      [ -b "$part" ] && blkid "$part" 2>/dev/null | grep -q ' TYPE="\(ext4\|xfs\)"' && { echo "$part"; return; }
    done
  done
}
if [ -z "${RESCUE_MOUNT:-}" ]; then
  part=
  for _ in $(seq 300); do
    part=$(find_part)
    [ -n "$part" ] && break
    sleep 2
  done
  [ -n "$part" ] || say "failed: the volume did not come"
  mkdir -p "$dir"
  # nouuid: the rescue instance may be of the same image.
  mount "$part" "$dir" 2>/dev/null || mount -o nouuid "$part" "$dir" || say "failed: $part cannot be mounted"
fi

line=$(grep "^$user:" "$dir/etc/passwd") || say "failed: no user $user"
ids=$(echo "$line" | cut -d: -f3,4)
home=$(echo "$line" | cut -d: -f6)
case "$home" in
/*) ;;
*) say "failed: $user has no home" ;;
esac
# Nothing on that disk is followed out of it.
for path in "$dir$home" "$dir$home/.ssh" "$dir$home/.ssh/authorized_keys"; do
  [ -L "$path" ] && say "failed: $path is a link"
done
[ -d "$dir$home" ] || say "failed: $home is not there"
mkdir -p "$dir$home/.ssh" || say "failed: .ssh cannot be made"
file="$dir$home/.ssh/authorized_keys"
touch "$file" || say "failed: authorized_keys cannot be written"
if [ -n "$key" ] && ! grep -qxF "$key" "$file"; then
  [ -s "$file" ] && [ -n "$(tail -c1 "$file")" ] && echo >>"$file"
  echo "$key" >>"$file" || say "failed: authorized_keys cannot be written"
fi
chmod go-w "$dir$home" && chmod 700 "$dir$home/.ssh" && chmod 600 "$file" && chown "$ids" "$dir$home/.ssh" "$file" || say "failed: modes cannot be set"
say "done"
