# In the place of nginx's image where none can be pulled.
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light wget && rm -rf /var/lib/apt/lists/*
CMD ["nginx", "-g", "daemon off;"]
