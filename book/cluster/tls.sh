# What all processes of a cluster share, so that nobody else can connect: one certificate with its key, and where Dask looks
# for it. To be sourced in the project's folder, on every node:
#     . book/cluster/tls.sh
# The file tls.pem is made once. Whoever can read it can run code as its owner.
[ -f tls.pem ] || (
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=vpcore -keyout tls.key -out tls.crt 2>tls.log ||
        { cat tls.log >&2; exit 1; }
    cat tls.crt tls.key >tls.pem.new && mv tls.pem.new tls.pem && rm tls.key tls.crt tls.log
)
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$PWD/tls.pem"
export DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__CERT="$PWD/tls.pem"
export DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT="$PWD/tls.pem"
export DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT="$PWD/tls.pem"
