<?php

// The connection to gt06's schema. In config/database.php, below 'connections':
//     'gt06' => require __DIR__.'/gt06.php',
// The user may read and nothing else (gt06ctl store init grants it).
return [
    'driver' => 'gt06',
    'host' => env('GT06_DB_HOST', '127.0.0.1'),
    'port' => env('GT06_DB_PORT', '3306'),
    'unix_socket' => env('GT06_DB_SOCKET', ''),
    'database' => env('GT06_DB_DATABASE', 'gt06'),
    'username' => env('GT06_DB_USERNAME', env('DB_USERNAME')),
    'password' => env('GT06_DB_PASSWORD', env('DB_PASSWORD')),
    'charset' => 'utf8mb4',
    'collation' => 'utf8mb4_unicode_ci',
    'prefix' => '',
    'strict' => true,
    'timezone' => '+00:00', // what NOW() means in SQL of your own
];
