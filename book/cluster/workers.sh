# The workers of a node: one for each of its GPUs, or, where there is none, one for each of its cores.
#     sh book/cluster/workers.sh tls://HOST:8786
# They end with the scheduler.
set -- "$1" --nthreads 1 --memory-limit 0 --no-dashboard --death-timeout 600
gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null) || gpus=
[ -n "$gpus" ] || exec dask worker "$@" --nworkers "$(nproc)"
for gpu in $gpus; do
    CUDA_VISIBLE_DEVICES=$gpu dask worker "$@" --name "$(hostname)-gpu$gpu" &
done
wait
