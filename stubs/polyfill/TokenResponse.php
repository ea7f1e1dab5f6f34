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

    /** From here on a number in `expires` is an instant (2001) and no duration (31 years). */
    private const FIRST_INSTANT_S = 1e9;
    /** From here on an instant is in milliseconds (1973): in seconds it would be the year 5138. */
    private const FIRST_INSTANT_MS = 1e11;
    private const WANTED = "it must return the token response as an array or JSON string, a token string with ['ttl' => seconds], "
        . 'or an object with getToken()';

    /** By so many seconds what is said of the lifetime may differ. */
    private const AGREED_S = 5.0;

    /** What was said of the lifetime and does not agree, as a sentence; known after lifetime(). */
    public ?string $contradiction = null;

    /**
     * @param array<array-key, mixed> $fields
     * @param array<string, string> $unread fields that are no data: what they are instead
     */
    private function __construct(
        #[\SensitiveParameter] public readonly string $token,
        #[\SensitiveParameter] private readonly array $fields,
        private readonly array $unread,
        private readonly bool $named,
    ) {
    }

    /**
     * Of a token in a field that says so RFC 6749 says what it may have; a text that says nothing of itself is a bearer token
     * as RFC 6750 has it, or none. An opaque one is what the caller says it is.
     *
     * @throws Unusable
     */
    public function check(bool $opaque): void
    {
        if (!Text::isUtf8($this->token)) {
            throw new Unusable('the token is not valid UTF-8');
        }
        if (trim($this->token) === '') {
            throw new Unusable('the token is empty; throw an exception when there is none');
        }
        // A line feed in a token ends up in an HTTP header.
        if (preg_match('/[\x00-\x1f\x7f]|\xc2[\x80-\x9f]/', $this->token, $match, PREG_OFFSET_CAPTURE) === 1) {
            throw new Unusable("the token has a control character at byte {$match[0][1]}: return the token alone, without line ends");
        }
        if ($opaque) {
            return;
        }
        if ($this->named) {
            if (preg_match('/[^\x21-\x7e]/', $this->token, $match, PREG_OFFSET_CAPTURE) === 1) {
                throw new Unusable("the token has a space, or a character outside of printable ASCII, at byte {$match[0][1]}: if it is right, "
                    . "pass ['opaque' => true]");
            }
            return;
        }
        $body = rtrim($this->token, '=');
        $odd = preg_match('~[^A-Za-z0-9._\~+/-]~', $body, $match, PREG_OFFSET_CAPTURE) === 1 ? $match[0][1] : ($body === '' ? 0 : null);
        if ($odd !== null) {
            throw new Unusable(Fault::ofText($this->token, $odd));
        }
    }

    /** @throws Unusable */
    public static function read(#[\SensitiveParameter] mixed $answer): self
    {
        return match (true) {
            \is_string($answer) => self::ofText($answer),
            \is_array($answer) => self::ofFields(...Plain::fields($answer)),
            \is_object($answer) => self::ofObject($answer),
            default => throw new Unusable('the callable returned ' . get_debug_type($answer) . '; ' . self::WANTED),
        };
    }

    /**
     * In seconds: the shortest of what `ttl`, `expires_in`, `expires_at`, `expires_on`, `expires` and the `exp` of a JWT say, from now, from the
     * issue time beside it, and by this host's clock.
     *
     * @throws Unusable
     */
    public function lifetime(?int $ttl, float $now): float
    {
        /** @var list<array{string, float, bool}> $said name, seconds that are left, by this host's clock */
        $said = $ttl === null ? [] : [['ttl', (float) $ttl, false]];
        $refused = [];
        $say = function (string $name, mixed $value, ?float $issued) use (&$said, &$refused, $now): void {
            $number = self::number($value);
            // league/oauth2-client says 0 when the issuer named no expiry.
            if ($name === 'expires' && $number === 0.0) {
                return;
            }
            if ($name === 'expires_in' || ($name === 'expires' && $number !== null && $number < self::FIRST_INSTANT_S)) {
                if ($number === null) {
                    $refused[] = "\"$name\" is " . self::described($value) . ', expected a number of seconds';
                    return;
                }
                if ($name === 'expires_in' && $number <= 0) {
                    $refused[] = self::noneLeft($name);
                    return;
                }
                $said[] = [$name, $number, false];
                if ($issued !== null) {
                    $said[] = [$name, $issued + $number - $now, true];
                }
                return;
            }
            if ($name !== 'expires' && $number !== null && $number <= 0) {
                $refused[] = self::noneLeft($name);
                return;
            }
            $at = self::instant($value);
            if ($at === null) {
                $refused[] = "\"$name\" is " . self::described($value)
                    . ", expected seconds since 1970 or an ISO 8601 time with Z or an offset; or pass ['ttl' => seconds]";
                return;
            }
            if ($issued !== null) {
                $said[] = [$name, $at - $issued, false];
            }
            $said[] = [$name, $at - $now, true];
        };
        $issued = self::instant($this->fields['iat'] ?? $this->fields['issued_at'] ?? null);
        $unread = [];
        foreach (['expires_in', 'expires_at', 'expires_on', 'expires'] as $name) {
            if (isset($this->fields[$name])) {
                $say($name, $this->fields[$name], $issued);
            }
            if (isset($this->unread[$name])) {
                $unread[] = "\"$name\" is {$this->unread[$name]}, expected a number or a date";
            }
        }
        $claims = self::claims($this->token);
        if (self::instant($claims['exp'] ?? null) !== null) {
            $say('exp', $claims['exp'], self::instant($claims['iat'] ?? $claims['issued_at'] ?? null));
        }
        $refused = [...$refused, ...$unread];
        foreach ($said as $i => [$name, $left]) {
            if ($left > self::LONGEST_S) {
                $refused[] = "\"$name\" means more than 10 years: check its unit, or pass ['ttl' => seconds]";
                unset($said[$i]);
            }
        }
        if ($said === []) {
            throw new Unusable($refused[0] ?? "the token response says no lifetime: pass ['ttl' => seconds], or return \"expires_in\", "
                . '"expires_at" or a JWT with "exp"');
        }
        usort($said, static fn (array $one, array $other): int => $one[1] <=> $other[1]);
        [$name, $left, $byClock] = $said[0];
        if ($left < 0.001) {
            throw new Unusable($byClock ? "by this host's clock \"$name\" was " . max(0, (int) round(-$left)) . ' s ago: check that clock, and '
                . 'whether the issuer answers from a cache' : self::noneLeft($name));
        }
        $agrees = static fn (array $it): bool => $it[1] - $left <= self::AGREED_S;
        $agreeing = array_column(array_filter($said, $agrees), 0);
        // An issuer may date a token back: its whole life is longer then than what is left of it, and what is left is what
        // others say, too.
        $datedBack = static fn (string $name): bool => in_array($name, $agreeing, true) && array_diff($agreeing, [$name]) !== [];
        // The caller may want less than the issuer gives; and this host's clock may be behind.
        $longer = $name === 'ttl' ? [] : array_filter($said, static fn (array $it): bool => !$it[2] && !$agrees($it) && !$datedBack($it[0]));
        if ($longer !== []) {
            $this->contradiction = self::told($said[0]) . ', and ' . self::told(end($longer))
                . '; the shorter counts: check the unit, this host\'s clock, and whether the issuer answers from a cache';
        }
        return $left;
    }

    /** Zero and below are how some issuers say that a token never ends. */
    private static function noneLeft(string $name): string
    {
        return "\"$name\" leaves the token no lifetime, expected one above zero: if it never ends, pass ['ttl' => seconds]";
    }

    /** @param array{string, float, bool} $said */
    private static function told(array $said): string
    {
        return "\"$said[0]\" says " . floor($said[1]) . ' s' . ($said[2] ? " by this host's clock" : '');
    }

    /**
     * @param list<string> $names
     * @return array<string, mixed> without fields that contain the token; a token of less than 8 bytes counts only as a whole value
     */
    public function kept(array $names): array
    {
        foreach (array_intersect($names, array_keys($this->unread)) as $name) {
            throw new Unusable("\"$name\" is {$this->unread[$name]}, and option 'keep' names it: keep what is data");
        }
        $kept = array_intersect_key($this->fields, array_flip($names));
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
        // What editors and some servers put before a text.
        $text = str_starts_with($text, "\xef\xbb\xbf") ? substr($text, 3) : $text;
        if (str_starts_with(ltrim($text), '{')) {
            $fields = json_decode($text, true);
            return \is_array($fields) ? self::ofFields($fields, []) : throw new Unusable('the returned text begins like JSON but is not valid JSON');
        }
        return new self($text, [], [], false);
    }

    /**
     * @param array<array-key, mixed> $fields
     * @param array<string, string> $unread
     */
    private static function ofFields(#[\SensitiveParameter] array $fields, array $unread): self
    {
        if (array_is_list($fields) && $unread === []) {
            throw new Unusable("the callable returned a list, expected the token response as an array, a JSON string, a JWT, or a string with "
                . "['ttl' => seconds]");
        }
        foreach (['access_token', 'token'] as $name) {
            if (isset($unread[$name])) {
                throw new Unusable("\"$name\" is $unread[$name], expected a string");
            }
            if (isset($fields[$name])) {
                return \is_string($fields[$name]) ? new self($fields[$name], $fields, $unread, true)
                    : throw new Unusable("\"$name\" is " . self::described($fields[$name]) . ', expected a string');
            }
        }
        $words = Fault::of($fields);
        if ($words !== null) {
            throw new Unusable("the issuer's answer is an error, $words");
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
        $expires = $expires instanceof \DateTimeInterface ? \DateTimeImmutable::createFromInterface($expires)->getTimestamp() : $expires;
        if ($expires !== null && !\is_int($expires) && !(\is_string($expires) && preg_match('/^-?\d{1,18}$/D', $expires) === 1)) {
            throw new Unusable("the callable returned a $class whose getExpires() is neither a Unix time, a date nor null");
        }
        return new self($token, $expires === null ? [] : ['expires' => (int) $expires], [], true);
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
