<?php

/**
 * What is compiled into the extension, from cargo's own account of it.
 *
 *   php bill.php FOLDER     writes sbom.cdx.json (CycloneDX 1.5) and NOTICES into that folder
 *
 * From `cargo tree`, which knows the features of every crate. Tools that read `cargo metadata` list what any build script's
 * or test's features bring, too: OpenSSL and sixty others that are not in the library.
 */

declare(strict_types=1);

/** @return list<string> */
function lines(string $command): array
{
    exec($command, $lines, $status);
    $status === 0 || exit("error: failed: $command\n");
    return $lines;
}

$folder = $argv[1] ?? exit("usage: bill.php FOLDER\n");
$target = preg_replace('/^host: /', '', current(preg_grep('/^host: /', lines('rustc -vV'))));
$rust = explode(' ', lines('rustc --version')[0])[1];

// Depth, name and version; a crate that came before has no second list of its own.
$used = [];
$above = [];
foreach (lines("cargo tree --locked --features php --target $target --edges normal,no-proc-macro --prefix depth --format ' {p}'") as $line) {
    preg_match('/^(\d+) (\S+) v(\S+)/', $line, $part) || exit("error: cannot read cargo's line: $line\n");
    $crate = "$part[2]@$part[3]";
    $used[$crate] ??= [];
    $above[(int) $part[1]] = $crate;
    if ($part[1] > 0) {
        $used[$above[$part[1] - 1]][$crate] = true;
    }
}
$self = $above[0];
ksort($used);

$known = [];
foreach (json_decode(implode("\n", lines('cargo metadata --locked --features php --format-version 1')), true)['packages'] as $package) {
    $known["$package[name]@$package[version]"] = $package;
}
preg_match_all('/^name = "(.*)"\nversion = "(.*)"\nsource = .*\nchecksum = "(.*)"$/m', (string) file_get_contents('Cargo.lock'), $locked, PREG_SET_ORDER);
$checksum = [];
foreach ($locked as [, $name, $version, $sum]) {
    $checksum["$name@$version"] = $sum;
}

$own = "pkg:composer/sharedstate/sharedstate@{$known[$self]['version']}";
$std = "pkg:generic/rust-std@$rust";
$purl = fn (string $crate): string => $crate === $self ? $own : "pkg:cargo/$crate";
// The old form of OR.
$license = fn (string $crate): string => str_replace('/', ' OR ', $known[$crate]['license']);
$component = fn (string $crate): array => array_filter([
    'type' => 'library', 'bom-ref' => $purl($crate), 'name' => $known[$crate]['name'], 'version' => $known[$crate]['version'],
    'description' => trim((string) $known[$crate]['description']),
    'hashes' => isset($checksum[$crate]) ? [['alg' => 'SHA-256', 'content' => $checksum[$crate]]] : null,
    'licenses' => [['expression' => $license($crate)]], 'purl' => $purl($crate),
    'externalReferences' => isset($known[$crate]['repository']) ? [['type' => 'vcs', 'url' => $known[$crate]['repository']]] : null,
]);
$crates = array_keys(array_diff_key($used, [$self => true]));
$dependencies = [];
foreach ($used as $crate => $needs) {
    $dependencies[] = ['ref' => $purl($crate), 'dependsOn' => [...array_map($purl, array_keys($needs)), $std]];
}
file_put_contents("$folder/sbom.cdx.json", json_encode([
    'bomFormat' => 'CycloneDX', 'specVersion' => '1.5', 'version' => 1,
    'metadata' => [
        'timestamp' => gmdate('Y-m-d\TH:i:s\Z', (int) getenv('SOURCE_DATE_EPOCH')),
        'component' => $component($self),
        'properties' => [['name' => 'cdx:rustc:sbom:target:triple', 'value' => $target]],
    ],
    'components' => [
        ...array_map($component, $crates),
        ['type' => 'library', 'bom-ref' => $std, 'name' => 'rust-std', 'version' => $rust, 'description' => "Rust's standard library",
            'licenses' => [['expression' => 'MIT OR Apache-2.0']], 'purl' => $std],
    ],
    'dependencies' => [...$dependencies, ['ref' => $std]],
], JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR) . "\n");

// One text, however many crates have it: they differ in white space only.
$texts = [];
$list = '';
foreach ($crates as $crate) {
    $files = glob(dirname($known[$crate]['manifest_path']) . '/{LICEN[CS]E,COPYING,COPYRIGHT,NOTICE,UNLICENSE}*', GLOB_BRACE);
    foreach (array_filter($files, is_file(...)) as $file) {
        $text = (string) file_get_contents($file);
        $key = md5((string) preg_replace('/\s+/', ' ', trim($text)));
        $texts[$key]['text'] ??= trim($text, "\r\n");
        $texts[$key]['of'][] = $crate;
    }
    $list .= sprintf("    %-36s %s%s\n", $crate, $license($crate), $files === [] ? ' (no text in the crate)' : '');
}
$notices = "sharedstate is compiled from these crates and from Rust's standard library $rust (MIT OR Apache-2.0).\n\n$list";
foreach ($texts as ['text' => $text, 'of' => $of]) {
    $notices .= "\n" . str_repeat('-', 78) . "\n" . wordwrap(implode(', ', array_unique($of)), 78) . "\n" . str_repeat('-', 78) . "\n\n$text\n";
}
file_put_contents("$folder/NOTICES", $notices);
