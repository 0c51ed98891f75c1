# The node as an image: docker build --tag couchledger .
#
#   docker run --rm --volume "$HOME/bigchaindb_docker:/data" couchledger -y configure couchdb
#   docker run --detach --publish 9984:9984 --volume "$HOME/bigchaindb_docker:/data" couchledger start
#
# The process is user 1000, which the first user of most machines is. Make the
# folder that is mounted as /data before the first run: Docker would make it for
# root, and the node could not write there. A folder of another user's works
# with --user "$(id -u):$(id -g)".

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# Without cgo the binary needs nothing around it.
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/bigchaindb ./cmd/bigchaindb \
 && mkdir /out/data

FROM scratch
# For a CouchDB behind TLS whose certificate a public authority signed.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bigchaindb /usr/bin/bigchaindb
# A named volume takes its owner from here.
COPY --from=build --chown=1000:1000 /out/data /data

USER 1000:1000
WORKDIR /data
# HOME is for paths that begin with ~. localhost inside the container is
# nobody's, so the API listens on all of its interfaces.
ENV HOME=/data \
    BIGCHAINDB_CONFIG_PATH=/data/.bigchaindb \
    BIGCHAINDB_SERVER_BIND=0.0.0.0:9984
VOLUME /data
EXPOSE 9984
ENTRYPOINT ["/usr/bin/bigchaindb"]
CMD ["start"]
