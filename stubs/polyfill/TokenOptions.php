<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** The options of the token functions. All three take the same array; the fingerprint counts everywhere. */
final class TokenOptions extends Options
{
    private const KNOWN = ['ttl', 'margin', 'refresh_ratio', 'wait_ms', 'fingerprint', 'rejected', 'keep', 'store_down', 'defer', 'opaque'];
    private const NEVER_KEPT = ['access_token', 'token', 'refresh_token', 'id_token'];
    private const MAX_WAIT_MS = 3_600_000;

    public readonly ?int $ttl;
    public readonly float $margin;
    public readonly float $refreshRatio;
    /** In seconds. */
    public readonly float $wait;
    public readonly string $fingerprint;
    public readonly ?string $rejected;
    /** @var list<string> */
    public readonly array $keep;
    public readonly bool $defer;
    public readonly bool $opaque;

    /** @param array<array-key, mixed> $given */
    public function __construct(#[\SensitiveParameter] array $given, int $position)
    {
        parent::__construct($given, $position, self::KNOWN);
        $settings = Settings::current();
        $ttl = $this->number('ttl');
        if ($ttl !== null && ($ttl < 1 || $ttl > TokenResponse::LONGEST_S)) {
            throw $this->refused("option 'ttl' is " . (int) $ttl . ", but must be the token's lifetime in seconds, from 1 to "
                . TokenResponse::LONGEST_S . ' (10 years)');
        }
        $this->ttl = $ttl === null ? null : (int) $ttl;
        $margin = $this->number('margin');
        if ($margin !== null && ((int) $margin < 0 || $margin > 86_400)) {
            throw $this->refused("option 'margin' is " . (int) $margin . ', but must be 0 to 86400 seconds');
        }
        $this->margin = $margin === null ? $settings->seconds('token.expiry_margin_s') : (float) (int) $margin;
        $ratio = $this->number('refresh_ratio');
        if ($ratio !== null && ($ratio <= 0 || $ratio >= 1)) {
            throw $this->refused("option 'refresh_ratio' is $ratio, but must be above 0 and below 1");
        }
        $this->refreshRatio = $ratio ?? $settings->number('token.refresh_ratio');
        $this->keep = $this->names('keep');
        foreach ($this->keep as $name) {
            if (\in_array(strtolower($name), self::NEVER_KEPT, true)) {
                throw $this->refused("option 'keep' names \"$name\", but what is kept can be read by anyone who may see "
                    . 'shared_token_info(): leave tokens out');
            }
        }
        $this->fingerprint = $this->fingerprint('fingerprint');
        $this->rejected = $this->string('rejected');
        $wait = $this->number('wait_ms');
        if ($wait !== null && ($wait < 0 || $wait > self::MAX_WAIT_MS)) {
            throw $this->refused("option 'wait_ms' is $wait, but must be 0 to " . self::MAX_WAIT_MS . ' milliseconds');
        }
        $this->wait = $wait === null ? $settings->seconds('token.wait_timeout_ms') : $wait / 1000;
        // Checked, and without a meaning here: there is no store that could be down.
        $this->word('store_down', ['host', 'fail']);
        $this->defer = $this->bool('defer');
        $this->opaque = $this->bool('opaque');
    }

    /** @return array<string, mixed> */
    public function __debugInfo(): array
    {
        return [];
    }
}
