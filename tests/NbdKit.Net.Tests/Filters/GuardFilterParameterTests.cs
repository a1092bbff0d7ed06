using NbdKit.Filters;

namespace NbdKit.Tests.Filters;

/// <summary>What the catalogue makes of the parameters of filters that count, limit and hold up requests.</summary>
public sealed class GuardFilterParameterTests
{
    [Test]
    public void Limits()
    {
        Assert.That(Make<LimitFilter>("limit").Limit, Is.EqualTo(1));
        Assert.That(Make<LimitFilter>("limit", "limit=0").Limit, Is.Zero);
        QuotaFilter quota = Make<QuotaFilter>("quota", "quota-read=1M", "quota-write=0", "quota-close-after=50ms");
        Assert.That(
            (quota.Read, quota.Write, quota.Total, quota.CloseAfter),
            Is.EqualTo(((long?)(1 << 20), (long?)0, (long?)null, TimeSpan.FromMilliseconds(50))));
        Assert.That(Make<QuotaFilter>("quota", "quota=5").Total, Is.EqualTo(5));
        foreach (string name in new[] { "time-limit", "time_limit", "timelimit" })
        {
            Assert.That(Make<TimeLimitFilter>("time-limit", name + "=1500ms").Total, Is.EqualTo(TimeSpan.FromSeconds(1.5)), name);
        }
        TimeLimitFilter limit = Make<TimeLimitFilter>("time-limit", "time-limit-idle=5");
        Assert.That((limit.Total, limit.Idle), Is.EqualTo((TimeSpan.FromMinutes(1), TimeSpan.FromSeconds(5))));
        Wrong("limit", "limit=-1");
        Wrong("quota", "quota=-1");
        Wrong("time-limit", "time-limit=51d");
    }

    [Test]
    public void Counts()
    {
        StatsFilter stats = Make<StatsFilter>("stats", "statsfile=/tmp/x", "statsappend=true", "statsthreshold=0");
        Assert.That((stats.StatsFile, stats.Append, stats.Threshold), Is.EqualTo(("/tmp/x", true, 0)));
        Make<CountFilter>("count");
        Wrong("stats", "statsfile=/tmp/x", "statsthreshold=101");
        Wrong("stats");
    }

    [Test]
    public void Evil()
    {
        EvilFilter evil = Make<EvilFilter>("evil");
        Assert.That(
            (evil.Mode, evil.Probability, evil.StuckProbability, evil.Burst, evil.Seed),
            Is.EqualTo((EvilMode.StuckBits, (double?)null, 1.0, 1, (int?)null)));
        evil = Make<EvilFilter>(
            "evil", "evil=cosmic-rays", "evil-probability=1:1000", "evil-stuck-probability=50%", "evil-burst=8", "evil-seed=3");
        Assert.That(
            (evil.Mode, evil.Probability, evil.StuckProbability, evil.Burst, evil.Seed),
            Is.EqualTo((EvilMode.CosmicRays, (double?)1e-3, 0.5, 8, (int?)3)));
        Assert.That(Make<EvilFilter>("evil", "evil-mode=stuck-wires").Mode, Is.EqualTo(EvilMode.StuckWires));
        Wrong("evil", "evil=good");
        Wrong("evil", "evil-probability=2");
    }

    [Test]
    public void Exits()
    {
        Assert.That(Make<ExitlastFilter>("exitlast").Grace, Is.EqualTo(TimeSpan.Zero));
        Assert.That(Make<ExitlastFilter>("exitlast", "exitlast-grace=2.5").Grace, Is.EqualTo(TimeSpan.FromSeconds(2.5)));
        ExitwhenFilter exit = Make<ExitwhenFilter>(
            "exitwhen", "exit-when-file-created=/a", "exit-when-file-created=/b", "exit-when-file-deleted=/c",
            $"exit-when-process-exits={Environment.ProcessId}", $"exit-when-pid-exits={Environment.ProcessId}",
            "exit-when-pipe-closed=1", "exit-when-fd-closed=2", "exit-when-script=true", "exit-when-poll=5");
        Assert.That(exit.Events.Select(e => e.Description), Is.EqualTo(new[]
        {
            "/a was created", "/b was created", "/c was deleted", "the pipe 1 was closed", "the pipe 2 was closed",
            $"process {Environment.ProcessId} has ended", $"process {Environment.ProcessId} has ended", "the script 'true' said so",
        }));
        Assert.That(exit.Poll, Is.EqualTo(TimeSpan.FromSeconds(5)));
        Assert.That(Make<ExitwhenFilter>("exitwhen").Poll, Is.EqualTo(TimeSpan.FromSeconds(60)));
        Wrong("exitwhen", "exit-when-pipe-closed=x");
        Wrong("exitwhen", "exit-when-poll=0");
    }

    [Test]
    public void Faults()
    {
        Assert.That(Make<DdrescueFilter>("ddrescue", "ddrescue-mapfile=/x").MapFile, Is.EqualTo("/x"));
        SpinningFilter spinning = Make<SpinningFilter>("spinning");
        Assert.That(
            (spinning.Heads, spinning.SeparateHeads, spinning.MinSeekTime, spinning.HalfSeekTime, spinning.MaxSeekTime),
            Is.EqualTo((1, false, TimeSpan.FromSeconds(0.01), TimeSpan.FromSeconds(0.2), TimeSpan.FromSeconds(0.5))));
        spinning = Make<SpinningFilter>(
            "spinning", "heads=8", "separate-heads=yes", "min-seek-time=0.5", "half-seek-time=10ms", "max-seek-time=1");
        Assert.That(
            (spinning.Heads, spinning.SeparateHeads, spinning.MinSeekTime, spinning.HalfSeekTime, spinning.MaxSeekTime),
            Is.EqualTo((8, true, TimeSpan.FromSeconds(0.5), TimeSpan.FromSeconds(0.01), TimeSpan.FromSeconds(1))));
        RetryRequestFilter retry = Make<RetryRequestFilter>("retry-request");
        Assert.That((retry.Retries, retry.RetryDelay, retry.RetryOpen), Is.EqualTo((2, TimeSpan.FromSeconds(2), true)));
        retry = Make<RetryRequestFilter>(
            "retry-request", "retry-request-retries=7", "retry-request-delay=100ms", "retry-request-open=no");
        Assert.That((retry.Retries, retry.RetryDelay, retry.RetryOpen), Is.EqualTo((7, TimeSpan.FromSeconds(0.1), false)));
        Wrong("ddrescue");
        Wrong("spinning", "heads=65");
    }

    private static T Make<T>(string filter, params string[] parameters)
        where T : INbdFilter
    {
        IEnumerable<KeyValuePair<string, string>> given = parameters.Select(
            text => KeyValuePair.Create(text.Split('=')[0], text[(text.IndexOf('=') + 1)..]));
        NbdBackend chain = new NbdCatalogue().Compose("memory", [filter], given.Append(new("size", "1M")));
        Assert.That(chain.Name, Is.EqualTo(filter));
        return (T)chain.Filter!;
    }

    private static void Wrong(string filter, params string[] parameters)
        => Assert.That(() => Make<INbdFilter>(filter, parameters), Throws.InstanceOf<ArgumentException>());
}
