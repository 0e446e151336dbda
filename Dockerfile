# An image that serves an index:
#   docker build -t retrieve .
#   docker run -p 8000:8000 -v $PWD/indexes/shop:/index:ro -v $PWD/shop:$PWD/shop:ro retrieve
# An index names the folder of its pictures absolutely: that is mounted at the same place.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY training training
COPY indexer indexer
COPY retrieval retrieval
COPY service service
COPY benchmarks benchmarks
RUN python -m venv /app \
 && /app/bin/pip install --no-cache-dir -c constraints.txt ".[serve]" \
 && /app/bin/pip uninstall -y pip

FROM python:3.11-slim
COPY --from=build /app /app
USER 10001
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["retrieve", "serve", "--host", "0.0.0.0"]
CMD ["/index"]
