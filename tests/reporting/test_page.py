def test_it(run_folder, tmp_path):
    from robustlab.reporting import report
    from robustlab.reporting import terminal_table
    from robustlab.results import results
    from robustlab.runs import read_run
    import shutil

    print(terminal_table(results(read_run(run_folder))))
    p = report([run_folder], "/tmp/c_page/report.html")
    shutil.copytree(run_folder, "/tmp/c_page/run", dirs_exist_ok=True)
    print(p.stat().st_size)
