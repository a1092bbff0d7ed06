namespace NbdKit.Tests;

public sealed class ExportListTests
{
    [Test]
    public void Exports_are_kept_in_the_order_in_which_they_were_added()
    {
        var list = new ExportList();
        list.Add("b", "second");
        list.Add("a");
        list.Add("");
        Assert.That(list, Is.EqualTo(new[] { new NbdExport("b", "second"), new NbdExport("a"), new NbdExport("") }));
        Assert.That((list.Count, list[0].Description, list[1].Description), Is.EqualTo((3, "second", default(string))));
    }

    [Test]
    public void Strings_that_must_not_travel_are_refused()
    {
        var list = new ExportList();
        list.Add(new string('x', 4096), new string('é', 2048));
        Assert.That(() => list.Add(new string('x', 4097)), Throws.ArgumentException.With.Message.Contains("export name"));
        Assert.That(() => list.Add("x", new string('é', 2049)), Throws.ArgumentException.With.Message.Contains("export description"));
        Assert.That(() => list.Add("a\0b"), Throws.ArgumentException.With.Message.Contains("NUL"));
        Assert.That(() => list.Add("\ud800"), Throws.ArgumentException.With.Message.Contains("Unicode"));
        Assert.That(() => list.Add(null!), Throws.ArgumentNullException);
        Assert.That(list.Count, Is.EqualTo(1));
    }

    [Test]
    public void A_list_takes_ten_thousand_exports()
    {
        var list = new ExportList();
        for (int i = 0; i < ExportList.MaximumCount; i++)
        {
            list.Add(i.ToString());
        }
        Assert.That(() => list.Add("one more"), Throws.InvalidOperationException);
        Assert.That(list.Count, Is.EqualTo(10_000));
    }
}
