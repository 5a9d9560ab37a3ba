# A study on machines that share this folder and let you in by ssh without a password:
#     sh book/cluster/ssh.sh "node1 node2" run --profile real --data DIR
# The scheduler runs here; HOST is this machine's name as the others know it, PORT where it listens.
recipes=$(cd "$(dirname "$0")" && pwd) nodes=$1 address=tls://${HOST:=$(hostname)}:${PORT:=8786}
shift
. "$recipes/tls.sh"
started=
trap 'kill $started; wait' EXIT
trap 'exit 143' TERM
dask scheduler --protocol tls --port "$PORT" --no-dashboard &
started=$!
for node in $nodes; do
    ssh -o BatchMode=yes "$node" "cd '$PWD' && PATH='$PATH' && . '$recipes/tls.sh' && sh '$recipes/workers.sh' $address" &
    started="$started $!"
done
python -m vpcore "$@" --scheduler "$address"
