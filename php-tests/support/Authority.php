<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A private certificate authority of one test, by the openssl command: keys, certificates and its own are in $folder. */
final class Authority
{
    private const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

    public function __construct(private readonly string $folder)
    {
        mkdir($folder);
        self::openssl('req', '-x509', ...self::NEW_KEY, ...[
            '-subj', '/CN=authority', '-days', '1', '-out', $this->certificate(), '-keyout', "$folder/ca.key",
        ]);
    }

    public function certificate(): string
    {
        return "$this->folder/ca.pem";
    }

    /**
     * Options of a redis-server with a certificate of its own, which asks clients for theirs.
     *
     * @return list<string>
     */
    public function serverOptions(string $name): array
    {
        [$certificate, $key] = $this->sign($name);
        return ['--tls-cert-file', $certificate, '--tls-key-file', $key, '--tls-ca-cert-file', $this->certificate(), '--tls-replication', 'yes'];
    }

    /** @return array<string, string> settings of a host with a certificate */
    public function hostSettings(): array
    {
        [$certificate, $key] = $this->sign('client');
        // A handshake of sixteen busy workers on a small machine.
        return ['redis.tls_ca' => $this->certificate(), 'redis.tls_cert' => $certificate, 'redis.tls_key' => $key, 'redis.connect_timeout_ms' => '2000'];
    }

    /**
     * For a server of these $names; nobody compares those of a client. With zero $days it is over a second later.
     *
     * @return array{string, string} the files of certificate and key
     */
    public function sign(string $name, string $names = 'DNS:localhost,IP:127.0.0.1', int $days = 1): array
    {
        [$certificate, $key, $request] = ["$this->folder/$name.pem", "$this->folder/$name.key", "$this->folder/$name.request"];
        self::openssl('req', ...self::NEW_KEY, ...[
            '-subj', "/CN=$name", '-addext', "subjectAltName=$names", '-out', $request, '-keyout', $key,
        ]);
        self::openssl('x509', '-req', '-in', $request, '-CA', $this->certificate(), '-CAkey', "$this->folder/ca.key",
            '-days', (string) $days, '-copy_extensions', 'copyall', '-out', $certificate);
        return [$certificate, $key];
    }

    private static function openssl(string ...$arguments): void
    {
        exec('openssl ' . implode(' ', array_map('escapeshellarg', $arguments)) . ' 2>&1', $output, $status);
        if ($status !== 0) {
            throw new RuntimeException('openssl failed: ' . implode("\n", $output));
        }
    }
}
