<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Foreign text, made fit for a sentence. */
final class Text
{
    private const REMOVED = '[removed]';
    private const MAX_REASON = 200;

    /** What somebody gave, for a sentence that refuses it. */
    public static function quoted(string $text, int $characters = 40): string
    {
        $plain = json_encode($text, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE);
        $cut = json_decode((string) $plain);
        $cut = preg_match('/^.{0,' . $characters . '}/us', $cut, $match) ? $match[0] : '';
        return (string) json_encode($cut, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    }

    public static function isUtf8(string $text): bool
    {
        return preg_match('//u', $text) === 1;
    }

    /**
     * The message of a foreign failure, fit to be shown and logged: no credentials, no URL queries, no keys in URLs, one line, at
     * most 200 bytes. It cannot know every secret, so it removes what has the shape of one.
     */
    public static function redacted(string $reason): string
    {
        $line = preg_replace('/[\x00-\x1f\x7f]/', ' ', $reason);
        // A "?" in a password puts the "@" behind it: then all of it is suspect.
        $line = preg_replace('~(://)[^\s"\'`<>/@?#]*[?#][^\s"\'`<>]*@[^\s"\'`<>]*~', '$1' . self::REMOVED, $line);
        $line = preg_replace('~(://)(?:[^\s"\'`<>?#]*@)?([^\s"\'`<>?#]*)(?:[?#][^\s"\'`<>]*)?~', '$1$2', $line);
        // Some providers take their key as a part of the path.
        $line = preg_replace_callback('~(://[^\s"\'`<>/]*)(/[^\s"\'`<>]*)~', static fn (array $url): string => $url[1]
            . preg_replace('~(?<=/)(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[^/]{16,}~', self::REMOVED, $url[2]), $line);
        $line = preg_replace(
            '~((?:bearer|basic)[ :="\'\\\\\]>]*[ :=][ :="\'\\\\\]>]*'
            . '|(?:token|secret|password|assertion|api_key|app_id)[ :="\'\\\\\]>]*[:=][ :="\'\\\\\]>]*)[^\s"\'`<>&]+~i',
            '$1' . self::REMOVED, $line);
        // A header of any JWT begins with {", which is eyJ in base64. Cut last: half a token is no longer recognised.
        $line = preg_replace('~eyJ[A-Za-z0-9\-_.=]{17,}~', self::REMOVED, $line);
        $line = substr((string) $line, 0, self::MAX_REASON);
        return self::isUtf8($line) ? $line : (string) preg_replace('/[\x80-\xff]+$/', '', $line);
    }
}
