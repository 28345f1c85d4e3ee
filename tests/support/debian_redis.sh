#!/bin/sh
# Unpacks Debian's own redis-server into a folder, without installing it: debian_redis.sh .servers/debian
set -eu
mkdir -p "$1/debs"
cd "$1/debs"
apt-get download -q=2 redis-server redis-tools libatomic1 libjemalloc2 liblzf1
for each in *.deb; do dpkg-deb --extract "$each" ../root; done
cd ..
rm -r debs
{
  echo '#!/bin/sh'
  echo 'root="$(dirname "$(readlink -f "$0")")/root"'
  echo 'export LD_LIBRARY_PATH="$(echo "$root"/usr/lib/*-linux-gnu)"'
  echo 'exec "$root/usr/bin/redis-server" "$@"'
} > redis-server
chmod +x redis-server
./redis-server --version
