# Arguments: the volume's id, the directory the files go to, the paths.
set -eu
volume=$1
target=$2
shift 2
dir=${RESTORE_MOUNT:-/run/gt06ops-files}
serial=$(echo "$volume" | tr -d -)
part=
for _ in $(seq 30); do
  for disk in ${RESTORE_DEVICE:-} "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$serial" /dev/sdg /dev/xvdg; do
    [ -b "$disk" ] || continue
    for p in "$disk-part1" "${disk}p1" "${disk}1" "$disk"; do
      [ -b "$p" ] && blkid -p "$p" 2>/dev/null | grep -q ' TYPE="\(ext4\|xfs\)"' && part=$p && break 3
    done
  done
  sleep 1
done
[ -n "$part" ] || { echo "$volume is not seen as a disk here"; exit 1; }
mkdir -p "$dir" "$target"
! mountpoint -q "$dir" || umount "$dir" # a run before was killed
chmod 700 "$target"
# The snapshot is of a system that ran: its journal is replayed, on this volume
# that nobody else has. nouuid: it has the identity of the root in use.
mount -o ro "$part" "$dir" 2>/dev/null || mount -o ro,nouuid "$part" "$dir"
trap 'umount "$dir"' EXIT
rm -f "$target/MANIFEST.sha256"
for path in "$@"; do
  [ -e "$dir$path" ] || [ -L "$dir$path" ] || { echo "$path is not in the snapshot"; exit 1; }
  (cd "$dir" && cp -a --parents -- ".$path" "$target")
done
(cd "$target" && find . -type f ! -name 'MANIFEST*' -print0 | sort -z | xargs -0r sha256sum >MANIFEST.part && mv MANIFEST.part MANIFEST.sha256)
