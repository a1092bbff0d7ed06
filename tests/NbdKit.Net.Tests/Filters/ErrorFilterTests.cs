using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class ErrorFilterTests
{
    private static readonly string[] Operations = ["read", "write", "trim", "zero", "cache", "extents"];

    private readonly CallRecorder _calls = new();

    [Test]
    public async Task A_rate_of_one_fails_every_request_before_it_reaches_the_plugin([ValueSource(nameof(Operations))] string operation)
    {
        await using NbdBackend chain = Compose(new ErrorFilter { All = new ErrorRule { Rate = 1, Error = NbdError.NoSpace } });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await ErrorOf(disk, operation), Is.EqualTo(NbdError.NoSpace));
        Assert.That(_calls.Count("plugin", operation), Is.Zero);
    }

    [Test]
    public async Task A_rule_of_an_operation_is_for_that_operation_only([ValueSource(nameof(Operations))] string failing)
    {
        var rule = new ErrorRule { Rate = 1, Error = NbdError.OutOfMemory };
        await using NbdBackend chain = Compose(failing switch
        {
            "read" => new ErrorFilter { Read = rule },
            "write" => new ErrorFilter { Write = rule },
            "trim" => new ErrorFilter { Trim = rule },
            "zero" => new ErrorFilter { Zero = rule },
            "cache" => new ErrorFilter { Cache = rule },
            _ => new ErrorFilter { Extents = rule },
        });
        await using NextContext disk = await chain.OpenAsync();
        foreach (string operation in Operations)
        {
            Assert.That(await ErrorOf(disk, operation), Is.EqualTo(operation == failing ? NbdError.OutOfMemory : (NbdError?)null), operation);
        }
    }

    [Test]
    public async Task Open_flush_and_close_never_fail()
    {
        await using NbdBackend chain = Compose(new ErrorFilter { All = new ErrorRule { Rate = 1 } });
        NextContext disk = await chain.OpenAsync();
        await disk.FlushAsync(default);
        await disk.CloseAsync();
        Assert.That(_calls.Count("plugin", "flush"), Is.EqualTo(1));
        _calls.AssertBalanced();
    }

    [Test]
    public async Task Without_rules_and_with_a_rate_of_zero_nothing_fails([Values] bool withRule)
    {
        await using NbdBackend chain = Compose(withRule ? new ErrorFilter { All = new ErrorRule { Rate = 0 } } : new ErrorFilter());
        await using NextContext disk = await chain.OpenAsync();
        foreach (string operation in Operations)
        {
            Assert.That(await ErrorOf(disk, operation), Is.Null, operation);
        }
    }

    [Test]
    public async Task A_seed_makes_the_same_requests_fail_again()
    {
        async Task<string> Pattern(int seed)
        {
            await using NbdBackend chain = Compose(new ErrorFilter { All = new ErrorRule { Rate = 0.3 }, Seed = seed });
            await using NextContext disk = await chain.OpenAsync();
            var pattern = new char[200];
            for (int i = 0; i < pattern.Length; i++)
            {
                pattern[i] = await ErrorOf(disk, "read") is null ? '.' : 'E';
            }
            return new string(pattern);
        }

        string first = await Pattern(42);
        Assert.That(await Pattern(42), Is.EqualTo(first));
        Assert.That(await Pattern(43), Is.Not.EqualTo(first));
        Assert.That(first.Count(c => c == 'E'), Is.InRange(30, 90), "seed 42: " + first);
    }

    [Test]
    public async Task Errors_come_only_while_the_file_exists()
    {
        string path = Path.Combine(TestContext.CurrentContext.WorkDirectory, $"inject-{Guid.NewGuid():N}");
        await using NbdBackend chain = Compose(new ErrorFilter { All = new ErrorRule { Rate = 1, File = path } });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await ErrorOf(disk, "read"), Is.Null);
        await File.WriteAllTextAsync(path, "");
        try
        {
            Assert.That(await ErrorOf(disk, "read"), Is.EqualTo(NbdError.IoError));
        }
        finally
        {
            File.Delete(path);
        }
        Assert.That(await ErrorOf(disk, "read"), Is.Null);
    }

    [Test]
    public async Task A_function_decides_by_the_request()
    {
        var seen = new List<ErrorRequest>();
        await using NbdBackend chain = Compose(new ErrorFilter
        {
            Decide = request =>
            {
                seen.Add(request);
                return request.Offset == 1024 ? NbdError.NoSpace : null;
            },
        });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[512], 0, RequestFlags.Fua, default);
        Assert.That(
            async () => await disk.WriteAsync(new byte[256], 1024, RequestFlags.None, default),
            Throws.TypeOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.NoSpace));
        Assert.That(seen, Is.EqualTo(new[]
        {
            new ErrorRequest(ErrorOperation.Write, 0, 512, RequestFlags.Fua),
            new ErrorRequest(ErrorOperation.Write, 1024, 256, RequestFlags.None),
        }));
    }

    [Test]
    public async Task What_is_emulated_fails_by_the_rule_of_what_it_is()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls)
            {
                Info = (_, info) => info with { CanZero = Support.Emulate, CanCache = Support.Emulate, CanExtents = false },
            },
            new ErrorFilter
            {
                Zero = new ErrorRule { Rate = 1, Error = NbdError.NoSpace },
                Cache = new ErrorRule { Rate = 1, Error = NbdError.OutOfMemory },
                Extents = new ErrorRule { Rate = 1, Error = NbdError.InvalidArgument },
            });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await ErrorOf(disk, "zero"), Is.EqualTo(NbdError.NoSpace));
        Assert.That(await ErrorOf(disk, "cache"), Is.EqualTo(NbdError.OutOfMemory));
        Assert.That(await ErrorOf(disk, "extents"), Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(await ErrorOf(disk, "write"), Is.Null);
    }

    [Test]
    public async Task Rules_can_be_changed_and_switched_off_while_the_filter_serves([ValueSource(nameof(Operations))] string operation)
    {
        var filter = new ErrorFilter();
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls)
            {
                Info = (_, info) => info with { CanZero = Support.Emulate, CanCache = Support.Emulate, CanExtents = false },
            },
            filter);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await ErrorOf(disk, operation), Is.Null);
        var rule = new ErrorRule { Rate = 1, Error = NbdError.NoSpace };
        filter.All = rule;
        Assert.That(await ErrorOf(disk, operation), Is.EqualTo(NbdError.NoSpace));
        rule = rule with { Error = NbdError.OutOfMemory };
        (filter.Read, filter.Write, filter.Trim, filter.Zero, filter.Extents, filter.Cache) = (rule, rule, rule, rule, rule, rule);
        Assert.That(await ErrorOf(disk, operation), Is.EqualTo(NbdError.OutOfMemory));
        filter.Enabled = false;
        Assert.That(await ErrorOf(disk, operation), Is.Null);
        filter.Enabled = true;
        Assert.That(await ErrorOf(disk, operation), Is.EqualTo(NbdError.OutOfMemory));
        rule = rule with { Rate = 0 };
        (filter.Read, filter.Write, filter.Trim, filter.Zero, filter.Extents, filter.Cache) = (rule, rule, rule, rule, rule, rule);
        Assert.That(await ErrorOf(disk, operation), Is.Null);
        (filter.Read, filter.Write, filter.Trim, filter.Zero, filter.Extents, filter.Cache) = (null, null, null, null, null, null);
        Assert.That(await ErrorOf(disk, operation), Is.EqualTo(NbdError.NoSpace));
        filter.All = null;
        Assert.That(await ErrorOf(disk, operation), Is.Null);
    }

    [Test]
    public void Parameters_are_inherited_one_by_one()
    {
        ErrorFilter filter = Create(("error", "ENOSPC"), ("error-rate", "10%"), ("error-file", "/tmp/inject"), ("error-pread", "EPERM"), ("error-trim-rate", "0"), ("error-zero-file", "/tmp/other"), ("error-seed", "7"));
        Assert.That(filter.Read, Is.EqualTo(new ErrorRule { Rate = 0.1, Error = NbdError.PermissionDenied, File = "/tmp/inject" }));
        Assert.That(filter.Write, Is.EqualTo(new ErrorRule { Rate = 0.1, Error = NbdError.NoSpace, File = "/tmp/inject" }));
        Assert.That(filter.Trim, Is.Null);
        Assert.That(filter.Zero, Is.EqualTo(new ErrorRule { Rate = 0.1, Error = NbdError.NoSpace, File = "/tmp/other" }));
        Assert.That(filter.Extents, Is.EqualTo(filter.Write));
        Assert.That(filter.Cache, Is.EqualTo(filter.Write));
        Assert.That(filter.Seed, Is.EqualTo(7));
        Assert.That(Create(("error-pwrite-rate", "1")).Read, Is.Null);
    }

    [Test]
    public void Bad_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new ErrorRule { Rate = -0.1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ErrorRule { Rate = double.NaN }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ErrorRule { Rate = 1, Error = NbdError.NotSupported }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ErrorRule { Rate = 1, Error = (NbdError)99 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new ErrorRule { Rate = 1, File = " " }, Throws.ArgumentException);
        Assert.That(() => Create(("error", "EWHATEVER")), Throws.ArgumentException);
        Assert.That(() => Create(("error-rate", "often")), Throws.ArgumentException);
    }

    private static ErrorFilter Create(params (string Name, string Value)[] parameters)
        => (ErrorFilter)ErrorFilter.Entry.Create(
            new NbdParameters("error", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));

    private NbdBackend Compose(ErrorFilter filter) => NbdBackend.Compose(new RecordingPlugin(_calls), filter);

    private static async Task<NbdError?> ErrorOf(NextContext disk, string operation)
    {
        try
        {
            await (operation switch
            {
                "read" => disk.ReadAsync(new byte[512], 0, default),
                "write" => disk.WriteAsync(new byte[512], 0, RequestFlags.None, default),
                "trim" => disk.TrimAsync(0, 512, RequestFlags.None, default),
                "zero" => disk.ZeroAsync(0, 512, RequestFlags.None, default),
                "cache" => disk.CacheAsync(0, 512, default),
                _ => disk.ExtentsAsync(0, 512, RequestFlags.None, new ExtentList(0, disk.Info.Size), default),
            });
            return null;
        }
        catch (NbdException e)
        {
            return e.Error;
        }
    }
}
