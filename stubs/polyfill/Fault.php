<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** What an issuer or a provider, or something before it, says instead of a token or a sheet. */
final class Fault
{
    /** @param array<array-key, mixed> $fields */
    public static function of(#[\SensitiveParameter] array $fields): ?string
    {
        $error = $fields['error'] ?? null;
        // False, zero and emptiness are how some say that there was none.
        if (\in_array($error, [null, false, 0, 0.0, '', []], true)) {
            return null;
        }
        $first = static function (array $names, mixed $of): string {
            foreach ($names as $name) {
                if (\is_array($of) && \is_string($of[$name] ?? null)) {
                    return $of[$name];
                }
            }
            return '';
        };
        $code = match (true) {
            \is_string($error) => $error,
            \is_array($error) => $first(['type', 'code', 'status'], $error),
            \is_int($error), \is_float($error) => (string) json_encode($error),
            default => '',
        };
        $description = $first(['error_description'], $fields) ?: $first(['message', 'info', 'description'], $error) ?: $first(['message'], $fields);
        return self::said($code, $description);
    }

    /** A text that is no token, by what it looks like. It is not quoted: it may hold one. */
    public static function ofText(#[\SensitiveParameter] string $text, int $at): string
    {
        if (str_contains($text, 'access_token=')) {
            return 'the returned text looks form-encoded, expected JSON: send the header "Accept: application/json" to the issuer';
        }
        if (str_starts_with($text, 'error=') || str_contains($text, '&error=')) {
            parse_str($text, $fields);
            $field = static fn (string $name): string => \is_string($fields[$name] ?? null) ? $fields[$name] : '';
            return "the issuer's answer is an error, " . self::said($field('error'), $field('error_description'));
        }
        $like = match (substr(ltrim($text), 0, 1)) {
            '<' => 'begins like markup',
            '[', '"' => 'begins like JSON, but is no object',
            default => str_contains($text, ' ') ? 'has words in it' : null,
        };
        return $like === null ? "the returned text has a character at byte $at that no bearer token has (RFC 6750): if it is a token, pass ['opaque' => true]"
            : "the returned text $like, not like a token: throw an exception when the issuer answers with an error";
    }

    private static function said(string $code, string $description): string
    {
        if ($code === '' && $description === '') {
            return 'and it does not say why';
        }
        $words = "it says: $code" . ($code === '' || $description === '' ? '' : ': ') . $description;
        // Some say back the token or the key that they refuse. Long words of letters and digits are taken for one.
        return Text::redacted(preg_replace('/(?=[A-Za-z._~+\/=-]*[0-9])(?=[0-9._~+\/=-]*[A-Za-z])[A-Za-z0-9._~+\/=-]{16,}/', '[removed]', $words));
    }
}
