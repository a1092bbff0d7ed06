using System.Text.Json;

namespace NbdKit.Filters.Luks;

/// <summary>The text in a header of version 2: key slots, digests, segments and configuration, each by number.</summary>
internal sealed class Luks2Metadata
{
    private const int MostObjects = 32;

    private readonly JsonElement _root;
    private readonly long _diskSize;
    private readonly List<string> _unusable = [];

    private Luks2Metadata(JsonElement root, long diskSize)
    {
        _root = root;
        _diskSize = diskSize;
    }

    /// <summary>Parses the text.</summary>
    /// <param name="text">The text, followed by zeroes.</param>
    /// <param name="fingerprint">The digest of the header.</param>
    /// <param name="diskSize">The size of the disk.</param>
    /// <exception cref="NbdException">It is not such a text, or asks for what is not supported.</exception>
    public static VolumeHeader Parse(ReadOnlyMemory<byte> text, byte[] fingerprint, long diskSize)
    {
        int end = text.Span.IndexOf((byte)0);
        try
        {
            using var document = JsonDocument.Parse(
                end < 0 ? text : text[..end], new JsonDocumentOptions { MaxDepth = 16 });
            return new Luks2Metadata(document.RootElement, diskSize).Header(fingerprint);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or KeyNotFoundException or FormatException)
        {
            // What is there is of another type than it must be, or is not there.
            throw new NbdException(NbdError.InvalidArgument, Fault.Refused("its header is damaged").Message, e);
        }
    }

    private VolumeHeader Header(byte[] fingerprint)
    {
        RefuseRequirements();
        JsonElement segment = Segment(out string number);
        string encryption = segment.GetProperty("encryption").GetString()!;
        if (segment.TryGetProperty("integrity", out _))
        {
            throw Fault.Refused("data with checksums of its own (dm-integrity) is not supported");
        }
        int sectorSize = segment.GetProperty("sector_size").GetInt32();
        if (sectorSize is not (512 or 1024 or 2048 or 4096))
        {
            throw Fault.Refused($"it has sectors of {sectorSize} bytes");
        }
        long offset = Long(segment, "offset");
        string size = segment.GetProperty("size").GetString()!;
        long? length = size == "dynamic" ? null : Long(segment, "size");
        if (offset < 4096 || offset % 512 != 0 || !VolumeHeader.IsInside(offset, length ?? 0, _diskSize))
        {
            throw Fault.Refused($"its data at {offset} is in the header or goes beyond the end of the disk");
        }
        List<KeySlot> slots = Slots(number);
        if (slots.Count == 0)
        {
            throw Fault.Refused($"it has no key slot that is supported: {string.Join(", ", _unusable.DefaultIfEmpty("it has none at all"))}");
        }
        return new VolumeHeader
        {
            Fingerprint = fingerprint,
            Cipher = CipherSpec.Parse(encryption, slots[0].KeyBytes),
            Offset = offset,
            Length = length,
            SectorSize = sectorSize,
            FirstSector = (ulong)Long(segment, "iv_tweak"),
            AllowsDiscards = _root.GetProperty("config").TryGetProperty("flags", out JsonElement flags)
                && Items(flags).Any(flag => flag.GetString() == "allow-discards"),
            Slots = slots,
            Unusable = _unusable,
        };
    }

    private void RefuseRequirements()
    {
        if (_root.GetProperty("config").TryGetProperty("requirements", out JsonElement requirements)
            && requirements.TryGetProperty("mandatory", out JsonElement mandatory)
            && Items(mandatory).Select(item => item.GetString()).FirstOrDefault() is { } first)
        {
            throw Fault.Refused($"it requires '{Shown(first)}', which is not supported");
        }
    }

    private JsonElement Segment(out string number)
    {
        List<JsonProperty> segments = Objects("segments");
        if (segments is not [var only] || only.Value.GetProperty("type").GetString() != "crypt")
        {
            throw Fault.Refused("it is not one encrypted segment");
        }
        number = only.Name;
        return only.Value;
    }

    private List<KeySlot> Slots(string segment)
    {
        (JsonElement value, KeyDigest digest) = Digest(segment);
        HashSet<string> own = [.. Items(value.GetProperty("keyslots")).Select(item => item.GetString()!)];
        var slots = new List<(int Priority, KeySlot Slot)>();
        foreach (JsonProperty property in Objects("keyslots").Where(p => own.Contains(p.Name)))
        {
            string name = $"key slot {Shown(property.Name)}";
            JsonElement kdf = property.Value.GetProperty("kdf");
            string type = property.Value.GetProperty("type").GetString()!;
            int priority = property.Value.TryGetProperty("priority", out JsonElement given) ? given.GetInt32() : 1;
            if (type != "luks2")
            {
                _unusable.Add($"{name} is of type {Shown(type)}");
            }
            else if (priority == 0)
            {
                _unusable.Add($"{name} is only for those who ask for it");
            }
            else
            {
                try
                {
                    slots.Add((priority, Slot(name, property.Value, kdf, digest)));
                }
                catch (NbdException e)
                {
                    // Another one may do.
                    _unusable.Add($"{name}: {e.Message}");
                }
            }
        }
        // All slots of a segment hold the same key.
        int keyBytes = slots.Count > 0 ? slots[0].Slot.KeyBytes : 0;
        return [.. slots.OrderByDescending(s => s.Priority).Select(s => s.Slot).Where(s => s.KeyBytes == keyBytes)];
    }

    private (JsonElement Value, KeyDigest Digest) Digest(string segment)
    {
        JsonElement digest = Objects("digests").Select(p => p.Value)
            .First(d => Items(d.GetProperty("segments")).Any(s => s.GetString() == segment));
        if (digest.GetProperty("type").GetString() != "pbkdf2")
        {
            throw Fault.Refused("the digest of its key is of a type that is not supported");
        }
        byte[] value = digest.GetProperty("digest").GetBytesFromBase64();
        return value.Length is 0 or > 64
            ? throw Fault.Refused($"the digest of its key has {value.Length} bytes")
            : (digest, new KeyDigest(
                HashSpec.Parse(Shown(digest.GetProperty("hash").GetString())),
                LuksLimits.Iterations(digest.GetProperty("iterations").GetInt64(), "the digest of the key"),
                digest.GetProperty("salt").GetBytesFromBase64(),
                value));
    }

    private KeySlot Slot(string name, JsonElement slot, JsonElement kdf, KeyDigest digest)
    {
        JsonElement area = slot.GetProperty("area");
        JsonElement af = slot.GetProperty("af");
        int keyBytes = slot.GetProperty("key_size").GetInt32();
        int areaKeyBytes = area.GetProperty("key_size").GetInt32();
        if (keyBytes is < 1 or > 64)
        {
            throw Fault.Refused($"a key of {keyBytes} bytes is too long");
        }
        var found = new KeySlot
        {
            Name = name,
            KeyBytes = keyBytes,
            Derivation = Derivation(name, kdf),
            Cipher = CipherSpec.Parse(Shown(area.GetProperty("encryption").GetString()), areaKeyBytes),
            AreaKeyBytes = areaKeyBytes,
            Offset = Long(area, "offset"),
            Stripes = LuksLimits.Stripes(af.GetProperty("stripes").GetInt64(), name),
            StripeHash = HashSpec.Parse(Shown(af.GetProperty("hash").GetString())),
            Digest = digest,
        };
        LuksLimits.RequireInside(found, _diskSize);
        return found;
    }

    private static KeyDerivation Derivation(string name, JsonElement kdf)
    {
        string type = kdf.GetProperty("type").GetString()!;
        byte[] salt = kdf.GetProperty("salt").GetBytesFromBase64();
        return type switch
        {
            "pbkdf2" => new Pbkdf2Derivation(
                HashSpec.Parse(Shown(kdf.GetProperty("hash").GetString())),
                LuksLimits.Iterations(kdf.GetProperty("iterations").GetInt64(), name),
                salt),
            "argon2i" or "argon2id" => LuksLimits.Argon2(
                name,
                type == "argon2i" ? Argon2Kind.I : Argon2Kind.Id,
                kdf.GetProperty("time").GetInt64(),
                kdf.GetProperty("memory").GetInt64(),
                kdf.GetProperty("cpus").GetInt64(),
                salt),
            _ => throw Fault.Refused($"its key derivation {Shown(type)} is not supported (pbkdf2, argon2i and argon2id are)"),
        };
    }

    private List<JsonProperty> Objects(string name)
    {
        List<JsonProperty> objects = [.. _root.GetProperty(name).EnumerateObject().Take(MostObjects + 1)];
        return objects.Count <= MostObjects ? objects : throw Fault.Refused($"its header has too many {name}");
    }

    private static IEnumerable<JsonElement> Items(JsonElement array) => array.EnumerateArray();

    // Numbers that may be larger than 2^53 are text.
    private static long Long(JsonElement element, string name)
        => long.TryParse(element.GetProperty(name).GetString(), out long value) && value >= 0
            ? value
            : throw Fault.Refused($"its {name} is not a number");

    // What is shown to people comes from whoever made the disk.
    private static string Shown(string? text)
        => text is { Length: > 0 and <= 64 } && text.All(c => c is >= ' ' and <= '~') ? text : "?";
}
