<?php

namespace App\Models\Gt06;

/** What positions and latest_positions have in common. */
abstract class Fix extends Model
{
    use HasExtras;

    protected $casts = [
        'fix_time' => 'datetime',
        'received_at' => 'datetime',
        'fix_hash' => 'string', // 64 bits without a sign: more than an int of PHP
        'valid' => 'boolean',
        'ignition' => 'boolean',
        'archived' => 'boolean',
    ];

    public function device()
    {
        return $this->belongsTo(Device::class);
    }
}
