using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Zeroes and trims of gigabytes through every filter are complete, change nothing beside their range, or fail.</summary>
public sealed class CompleteZeroTests
{
    // Beyond 4 GiB, and no multiple of any block size but 512.
    private const long Size = (6L << 30) + (3 << 16) + 512;

    /// <summary>Filters through which nothing can be zeroed at this size, with the reason.</summary>
    private static readonly Dictionary<string, string> Excluded = new()
    {
        ["checkwrite"] = "compares instead of writing",
        ["ddrescue"] = "read-only",
        ["ext2"] = "a file in an image that would have to be as large; its own tests zero files",
        ["forward-only"] = "read-only",
        ["gzip"] = "read-only",
        ["qcow2dec"] = "read-only",
        ["readonly"] = "read-only",
        ["tls-fallback"] = "another disk for clients without TLS, who are all here",
    };

    /// <summary>Filters whose effect on a zero needs parameters.</summary>
    private static readonly Dictionary<string, string[]> Parameters = new()
    {
        ["blocksize"] = ["minblock=4k", "maxdata=64k", "maxlen=1g"],
        ["delay"] = ["delay-zero=1ms", "delay-trim=1ms"],
        ["error"] = ["error-rate=0%"],
        ["evil"] = ["evil-probability=0"],
        ["extentlist"] = ["extentlist=/dev/null"],
        ["exitwhen"] = ["exit-when-file-created=/nonexistent/file"],
        ["exportname"] = ["default-export=x", "exportname=x"],
        ["log"] = ["logfile=/dev/null"],
        ["luks"] = ["passphrase=" + LuksImage.Passphrase],
        ["map"] = ["map=0-511:4g", "map=4294967296-4294967807:0"],
        ["offset"] = ["offset=65k"],
        ["partition"] = ["partition=1"],
        ["rate"] = ["rate=1T"],
        ["retry-request"] = ["retry-request-retries=1"],
        ["spinning"] = ["min-seek-time=0", "half-seek-time=0", "max-seek-time=0"],
        ["stats"] = ["statsfile=/dev/null"],
        ["tar"] = ["tar-entry=disk"],
        ["truncate"] = ["round-up=1M"],
        ["xor"] = ["xor=0x5A"],
    };

    private static IEnumerable<TestCaseData> Cases()
    {
        foreach (string filter in new NbdCatalogue().Filters.Select(filter => filter.Name).Where(name => !Excluded.ContainsKey(name)))
        {
            // nozero has modes of its own below, and luks offers no trim.
            foreach (bool isZero in filter switch { "nozero" => [false], "luks" => [true], _ => new[] { true, false } })
            {
                yield return new TestCaseData(filter, Parameters.GetValueOrDefault(filter, []), isZero)
                    .SetName($"{(isZero ? "Zero" : "Trim")} through {filter}");
            }
        }
        foreach (string mode in new[] { "emulate", "notrim", "plugin" })
        {
            yield return new TestCaseData("nozero", new[] { "zeromode=" + mode }, true).SetName($"Zero through nozero {mode}");
        }
        foreach (string mode in new[] { "writethrough", "unsafe" })
        {
            yield return new TestCaseData("cache", new[] { "cache=" + mode }, true).SetName($"Zero through cache {mode}");
            yield return new TestCaseData("cache", new[] { "cache=" + mode }, false).SetName($"Trim through cache {mode}");
        }
    }

    [TestCaseSource(nameof(Cases))]
    public async Task It_is_complete(string filter, string[] parameters, bool isZero)
    {
        // The whole disk, most of it from an odd offset on, and one byte more than 32 bits can tell.
        foreach ((long offset, long length) in new[] { (0L, long.MaxValue), (12_345L, 5L << 30), (1L << 30, (1L << 32) + 1) })
        {
            var vast = new VastDisk(Size);
            Prepare(vast, filter);
            await using NbdBackend chain = Compose(vast, filter, parameters);
            await using NextContext disk = await chain.OpenAsync();
            (long from, long count) = Fitting(disk.Info, offset, length);
            foreach (long place in CompletenessCheck.Places(from, count, disk.Info.Size))
            {
                // Where it may be below: the filters here move bytes by no more than their headers.
                foreach (long shift in new[] { 0, 65 << 10, LuksImage.HeaderBytes, 512, 1 << 20 })
                {
                    vast.Watch(place + shift);
                    vast.Watch(place + shift + 63);
                }
            }
            if (!isZero)
            {
                Assert.That(disk.Info.CanTrim);
                await new CompletenessCheck(disk).TrimAsync(from, count);
                if (vast.Trimmed.Count > 0 && filter is not ("cow" or "cache" or "blocksize" or "map" or "truncate"))
                {
                    Assert.That(vast.Trimmed.Count, Is.EqualTo(count), "what reached the disk");
                }
            }
            else
            {
                Assert.That(disk.Info.CanZero, Is.Not.EqualTo(Support.None));
                // Otherwise cow would write as many zeroes, as it must for who wants no holes.
                await new CompletenessCheck(disk).ZeroAsync(from, count, filter == "cow" ? RequestFlags.MayTrim : RequestFlags.None);
            }
            if (filter == "luks")
            {
                // Each byte is encrypted; once is enough.
                break;
            }
        }
    }

    [Test]
    public async Task A_zero_that_would_touch_protected_bytes_fails_and_changes_nothing()
    {
        var vast = new VastDisk(Size);
        await using NbdBackend chain = Compose(vast, "protect", [$"protect={Size - 512}-"]);
        await using NextContext disk = await chain.OpenAsync();
        NbdException? failure = Assert.ThrowsAsync<NbdException>(async () => await disk.ZeroAsync(0, Size, RequestFlags.None, default));
        Assert.That(failure?.Error, Is.EqualTo(NbdError.PermissionDenied));
        byte[] bytes = new byte[512];
        foreach (long offset in new[] { 0L, 1L << 32, Size - 512 })
        {
            await disk.ReadAsync(bytes, offset, default);
            Assert.That(bytes, Has.None.Zero);
        }
    }

    [Test]
    public void Every_filter_is_here_or_excluded_with_a_reason()
    {
        string[] names = [.. new NbdCatalogue().Filters.Select(filter => filter.Name)];
        Assert.That(names, Is.SupersetOf(Excluded.Keys));
        Assert.That(names, Is.SupersetOf(Parameters.Keys));
    }

    private static NbdBackend Compose(VastDisk vast, string filter, string[] parameters)
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(new NbdPluginEntry("vast", "a vast disk", [], _ => vast));
        return catalogue.Compose(
            "vast", [filter], [.. parameters.Select(text => new KeyValuePair<string, string>(text.Split('=')[0], text.Split('=', 2)[1]))]);
    }

    private static void Prepare(VastDisk vast, string filter)
    {
        byte[] sector = new byte[512];
        switch (filter)
        {
            case "luks":
                vast.Put(0, new LuksImage().Header);
                break;
            case "partition":
                PartitionImage.WriteRecord(sector, (0x83, 2048, (uint)((Size / 512) - 2048)));
                vast.Put(0, sector);
                break;
            case "tar":
                vast.Put(0, TarImage.Header("disk", Size - 512));
                break;
        }
    }

    private static (long Offset, long Length) Fitting(NbdExportInfo info, long offset, long length)
    {
        long unit = Math.Max(1, (long)info.BlockSize.Minimum);
        offset = offset / unit * unit;
        length = Math.Min(length, info.Size - offset);
        return (offset, length / unit * unit);
    }
}
