<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * What a minting callable may return: an array, JSON text, an object with getToken(), a JWT, or any string with a
 * ttl. Every refusal is a sentence about field names and types, never about a value.
 */
final class TokenResponse
{
    /** A longer lifetime is a mistake of units. */
    public const LONGEST_S = 10 * 365 * 86_400;

    private const MAX_DEPTH = 32;
    /** From here on a number in `expires` is an instant (2001) and no duration (31 years). */
    private const FIRST_INSTANT_S = 1e9;
    /** From here on an instant is in milliseconds (1973): in seconds it would be the year 5138. */
    private const FIRST_INSTANT_MS = 1e11;
    private const WANTED = "it must return the token response as an array or JSON string, a token string with ['ttl' => seconds], "
        . 'or an object with getToken()';

    /** @param array<array-key, mixed> $fields */
    private function __construct(#[\SensitiveParameter] public readonly string $token, #[\SensitiveParameter] private readonly array $fields)
    {
        if (!Text::isUtf8($token)) {
            throw new Unusable('the token is not valid UTF-8');
        }
        if (trim($token) === '') {
            throw new Unusable('the token is empty; throw an exception when there is none');
        }
        // A line feed in a token ends up in an HTTP header.
        if (preg_match('/[\x00-\x1f\x7f]|\xc2[\x80-\x9f]/', $token, $match, PREG_OFFSET_CAPTURE) === 1) {
            throw new Unusable("the token has a control character at byte {$match[0][1]}: return the token alone, without line ends");
        }
    }

    /** @throws Unusable */
    public static function read(#[\SensitiveParameter] mixed $answer): self
    {
        return match (true) {
            \is_string($answer) => self::ofText($answer),
            \is_array($answer) => self::ofFields(self::checked($answer, self::MAX_DEPTH)),
            \is_object($answer) => self::ofObject($answer),
            default => throw new Unusable('the callable returned ' . get_debug_type($answer) . '; ' . self::WANTED),
        };
    }

    /**
     * In seconds: of `expires_in`, `expires_at`, `expires_on`, `expires`, or the `exp` of a JWT.
     *
     * @throws Unusable
     */
    public function lifetime(float $now): float
    {
        if (isset($this->fields['expires_in'])) {
            $seconds = self::number($this->fields['expires_in'])
                ?? throw new Unusable('"expires_in" is ' . self::described($this->fields['expires_in']) . ', expected a number of seconds');
            return self::span('expires_in', $seconds);
        }
        foreach (['expires_at', 'expires_on', 'expires'] as $name) {
            $value = $this->fields[$name] ?? null;
            $number = self::number($value);
            // league/oauth2-client says 0 when the issuer named no expiry.
            if ($value === null || ($name === 'expires' && $number === 0.0)) {
                continue;
            }
            if ($name === 'expires' && $number !== null && $number < self::FIRST_INSTANT_S) {
                return self::span($name, $number);
            }
            $expiry = self::instant($value) ?? throw new Unusable("\"$name\" is " . self::described($value)
                . ", expected seconds since 1970 or an ISO 8601 time with Z or an offset; or pass ['ttl' => seconds]");
            return self::until($name, $expiry, $this->fields, $now);
        }
        $claims = self::claims($this->token);
        $expiry = self::instant($claims['exp'] ?? null);
        if ($expiry !== null) {
            return self::until('exp', $expiry, $claims, $now);
        }
        throw new Unusable("the token response says no lifetime: pass ['ttl' => seconds], or return \"expires_in\", \"expires_at\" or a JWT "
            . 'with "exp"');
    }

    /**
     * @param list<string> $names
     * @return array<string, mixed> without fields that contain the token; a token of less than 8 bytes counts only as a whole value
     */
    public function kept(array $names): array
    {
        $kept = array_intersect_key($this->fields, array_flip($names));
        ksort($kept, SORT_STRING);
        $json = static fn (mixed $value): string => (string) json_encode($value, \JSON_INVALID_UTF8_SUBSTITUTE | \JSON_PARTIAL_OUTPUT_ON_ERROR);
        $quoted = $json($this->token);
        $wanted = \strlen($this->token) < 8 ? $quoted : substr($quoted, 1, -1);
        return array_filter($kept, static fn (mixed $value): bool => !str_contains($json($value), $wanted));
    }

    /** @return array<string, mixed> */
    public function __debugInfo(): array
    {
        return [];
    }

    private static function ofText(#[\SensitiveParameter] string $text): self
    {
        $start = ltrim($text);
        if (str_starts_with($start, '{')) {
            $fields = json_decode($text, true);
            return \is_array($fields) ? self::ofFields($fields) : throw new Unusable('the returned text begins like JSON but is not valid JSON');
        }
        if (str_contains($text, 'access_token=')) {
            throw new Unusable('the returned text looks form-encoded, expected JSON: send the header "Accept: application/json" to the issuer');
        }
        // An error page with a ttl must not become everybody's token.
        if (str_starts_with($start, '<')) {
            throw new Unusable('the returned text begins like markup, not like a token: throw an exception when the issuer answers with an '
                . 'error page');
        }
        return new self($text, []);
    }

    /** @param array<array-key, mixed> $fields */
    private static function ofFields(#[\SensitiveParameter] array $fields): self
    {
        if (array_is_list($fields)) {
            throw new Unusable("the callable returned a list, expected the token response as an array, a JSON string, a JWT, or a string with "
                . "['ttl' => seconds]");
        }
        foreach (['access_token', 'token'] as $name) {
            if (isset($fields[$name])) {
                return \is_string($fields[$name]) ? new self($fields[$name], $fields)
                    : throw new Unusable("\"$name\" is " . self::described($fields[$name]) . ', expected a string');
            }
        }
        foreach (['access_token', 'token'] as $name) {
            if (\array_key_exists($name, $fields)) {
                throw new Unusable("\"$name\" is null; throw an exception when the issuer answers with an error");
            }
        }
        // A name that is no plain word may be a token itself, as after parse_str() on the wrong thing.
        $names = \array_slice(preg_grep('/^[A-Za-z_]{1,20}$/D', array_map(strval(...), array_keys($fields))) ?: [], 0, 3);
        throw new Unusable('the token response has no "access_token" or "token", only ' . (implode(', ', $names) ?: 'other fields')
            . '; throw an exception when the issuer answers with an error');
    }

    /** league/oauth2-client and its relatives. */
    private static function ofObject(#[\SensitiveParameter] object $object): self
    {
        $class = strtok($object::class, "\0");
        if (!\is_callable([$object, 'getToken'])) {
            $hint = $object instanceof \stdClass ? ' (json_decode($text, true) makes an array)' : '';
            throw new Unusable("the callable returned an object of class $class$hint; " . self::WANTED);
        }
        $token = $object->getToken();
        if (!\is_string($token)) {
            throw new Unusable("the callable returned a $class whose getToken() is not a string");
        }
        $expires = \is_callable([$object, 'getExpires']) ? $object->getExpires() : null;
        if ($expires !== null && !\is_int($expires) && !(\is_string($expires) && preg_match('/^-?\d{1,18}$/D', $expires) === 1)) {
            throw new Unusable("the callable returned a $class whose getExpires() is neither a Unix time nor null");
        }
        return new self($token, $expires === null ? [] : ['expires' => (int) $expires]);
    }

    /**
     * @param array<array-key, mixed> $values
     * @return array<array-key, mixed> what JSON could say as well
     */
    private static function checked(#[\SensitiveParameter] array $values, int $depth): array
    {
        foreach ($values as $key => $value) {
            match (true) {
                \is_string($key) && !Text::isUtf8($key) => throw new Unusable('the callable returned an array with a key that is not UTF-8'),
                \is_string($value) && !Text::isUtf8($value) => throw new Unusable('the callable returned an array with a string that is not UTF-8'),
                \is_array($value) => $depth > 1 ? self::checked($value, $depth - 1)
                    : throw new Unusable('the callable returned an array nested more than ' . self::MAX_DEPTH . ' levels deep'),
                $value === null || \is_scalar($value) => null,
                default => throw new Unusable('the callable returned an array that holds a value of type ' . gettype($value)),
            };
        }
        return $values;
    }

    /** @param array<array-key, mixed> $fields when it was issued, by the issuer's own clock, spoils no lifetime */
    private static function until(string $name, float $expiry, #[\SensitiveParameter] array $fields, float $now): float
    {
        $issued = self::instant($fields['iat'] ?? $fields['issued_at'] ?? null);
        if ($issued === null && $expiry <= $now) {
            throw new Unusable("by this host's clock \"$name\" has passed: check the clock and the issuer's response, or pass ['ttl' => seconds]");
        }
        return self::span($name, $expiry - ($issued ?? $now));
    }

    private static function span(string $name, float $seconds): float
    {
        return match (true) {
            $seconds < 0.001 => throw new Unusable("\"$name\" leaves the token no lifetime, expected one above zero"),
            $seconds > self::LONGEST_S => throw new Unusable("\"$name\" means more than 10 years: check its unit, or pass ['ttl' => seconds]"),
            default => $seconds,
        };
    }

    private static function number(#[\SensitiveParameter] mixed $value): ?float
    {
        $isNumber = \is_int($value) || \is_float($value) || (\is_string($value) && is_numeric(trim($value)));
        $number = $isNumber ? (float) (\is_string($value) ? trim($value) : $value) : NAN;
        return is_finite($number) ? $number : null;
    }

    /** Seconds since 1970. */
    private static function instant(#[\SensitiveParameter] mixed $value): ?float
    {
        $number = self::number($value);
        if ($number !== null) {
            return $number < self::FIRST_INSTANT_MS ? $number : $number / 1000;
        }
        $iso = '/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)$/D';
        if (!\is_string($value) || preg_match($iso, trim($value)) !== 1) {
            return null;
        }
        $time = date_create_immutable(strtr(trim($value), ',', '.'));
        return $time === false ? null : (float) $time->format('U.u');
    }

    /** @return array<array-key, mixed> of a JWT; nothing is decided by them but its lifetime, so nobody looks at the signature */
    private static function claims(#[\SensitiveParameter] string $token): array
    {
        if (preg_match('/^[\w-]*\.([\w-]+)\.[\w-]*$/D', $token, $part) !== 1) {
            return [];
        }
        $claims = json_decode((string) base64_decode(strtr($part[1], '-_', '+/'), true), true);
        return \is_array($claims) ? $claims : [];
    }

    private static function described(#[\SensitiveParameter] mixed $value): string
    {
        return match (true) {
            \is_string($value) => 'a string of another form',
            \is_bool($value) => 'a boolean',
            \is_array($value) => array_is_list($value) ? 'a list' : 'an array',
            default => 'a number',
        };
    }
}
