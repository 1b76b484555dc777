<?php

namespace App\Models\Gt06;

/** A command that was sent, and its reply. To send one: gt06ctl send IMEI COMMAND. */
class DeviceCommand extends Model
{
    protected $table = 'device_commands';

    protected $casts = ['sent_at' => 'datetime', 'replied_at' => 'datetime'];

    public function device()
    {
        return $this->belongsTo(Device::class);
    }
}
